"""The words of Hydra and OmegaConf, made fit for one message."""


def explain(error: Exception) -> str:
    """Hydra's message on one line, without its hints about Hydra."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = [line.strip() for line in str(error.__cause__ or "").splitlines() if line.strip()]
    return " ".join(dict.fromkeys(line for line in lines + cause[:1] if "HYDRA_FULL_ERROR" not in line))

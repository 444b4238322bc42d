"""Every formula of the field, once: pure functions of tensors."""

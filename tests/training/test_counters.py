"""Which mean return is the best so far, and how far a run has come."""

from pgx.training.loop import RECENT_EPISODES, Counters


def test_the_recent_return_is_of_the_last_episodes() -> None:
    counters = Counters()
    assert counters.recent_return is None
    counters.add_returns([float(i) for i in range(RECENT_EPISODES + 5)])
    assert counters.recent == [float(i) for i in range(5, RECENT_EPISODES + 5)]
    counters.add_returns([1000.0])
    assert counters.recent[-1] == 1000.0 and len(counters.recent) == RECENT_EPISODES


def test_the_best_is_a_mean_of_as_many_episodes_as_any_other_and_the_first_of_equals() -> None:
    counters = Counters(steps=10)
    assert not counters.add_returns([1000.0]) and counters.best_return is None  # one lucky episode
    counters.recent = []
    assert counters.add_returns([5.0] * RECENT_EPISODES)
    counters.steps = 20
    assert not counters.add_returns([5.0]) and (counters.best_return, counters.best_steps) == (5.0, 10)
    assert counters.add_returns([6.0]) and counters.best_steps == 20 and counters.best_return == 5.05
    counters.steps = 30
    assert not counters.add_returns([0.0] * 5) and counters.best_steps == 20


def test_a_summary_has_the_progress_of_the_run() -> None:
    counters = Counters(
        steps=300, iterations=3, seconds=1.5, recent=[1.0, 3.0], best_return=7.0, best_steps=200
    )
    assert counters.summary("interrupted", None) == {
        "status": "interrupted",
        "error": None,
        "steps": 300,
        "iterations": 3,
        "seconds": 1.5,
        "steps_per_second": 200.0,
        "final_return": 2.0,
        "final_return_episodes": 2,
        "best_return": 7.0,
        "best_steps": 200,
    }

"""Options of a trace that are no positions, steps, sites or numbers, or too many digits of one."""

from tests.hostile.making import Case, given

CASES: dict[str, tuple[Case, str]] = {
    "position": (given("--position", "((("), r"\("),
    "steps": (given("--steps", "5..1"), r"5\.\.1|steps"),
    "sites": (given("--sites", "head.1.99"), r"heads are"),
    "sites up": (given("--sites", "../x"), r"must name a site, got"),
    "probes up": (given("--probes", "../../os"), r"no probe called"),
    "out of too long a name": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / ("x" * 400)],
        r"is too long for a file",
    ),
    "position nested": (given("--position", "(" * 20_000 + "last"), r"\("),
    "steps of many digits": (given("--steps", "9" * 5000), r"at most 18 digits"),
    "steps of other digits": (given("--steps", "²"), r"'²' selects no steps"),
    "sites of many digits": (given("--sites", "resid." + "9" * 500), r"layer"),
    "seed beyond numbers": (given("--seed", "9" * 20), r"must have at most 18 digits"),
}

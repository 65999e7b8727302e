"""Does the object stand in that relation to the subject? Label 1: the right one, 0: the object of another subject of the same relation.

28 relations about facts, common sense and language; the part `bias` is left out, since its objects are not facts. The seed draws up to 60
subjects per relation. The subject is the group; its two statements are a pair. Wrong objects are as frequent as right ones, so that the
object alone predicts little. Hernandez et al., arXiv:2308.09124. The hashes of the upstream files are unknown: the number of samples is
checked.
"""

import random

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.grouping import group_by_keys

_RELATIONS = (
    ("commonsense", "fruit_outside_color", 30),
    ("commonsense", "object_superclass", 76),
    ("commonsense", "task_done_by_tool", 52),
    ("commonsense", "word_sentiment", 60),
    ("commonsense", "work_location", 38),
    ("factual", "company_hq", 674),
    ("factual", "country_capital_city", 24),
    ("factual", "country_currency", 30),
    ("factual", "country_largest_city", 24),
    ("factual", "landmark_in_country", 836),
    ("factual", "landmark_on_continent", 947),
    ("factual", "person_band_lead_singer", 21),
    ("factual", "person_father", 991),
    ("factual", "person_native_language", 919),
    ("factual", "person_occupation", 821),
    ("factual", "person_plays_pro_sport", 318),
    ("factual", "person_university", 91),
    ("factual", "presidents_birth_year", 19),
    ("factual", "presidents_election_year", 19),
    ("factual", "product_by_company", 522),
    ("factual", "star_constellation", 362),
    ("factual", "superhero_archnemesis", 96),
    ("factual", "superhero_person", 100),
    ("linguistic", "adj_comparative", 68),
    ("linguistic", "adj_superlative", 80),
    ("linguistic", "verb_past_tense", 76),
    ("linguistic", "word_first_letter", 241),
    ("linguistic", "word_last_letter", 241),
)
_MAX_SUBJECTS = 60
SOURCES = tuple(
    download.DataSource(
        f"lre_relations/{kind}/{name}.json",
        "evandez/relations",
        f"data/{kind}/{name}.json",
        "1b9ec3cf2b83",
        None,
        ("prompt_templates", "samples"),
        samples,
    )
    for kind, name, samples in _RELATIONS
)


def concept(seed: int = 0) -> Concept:
    """Two statements per drawn subject; the seed draws subjects and wrong objects."""
    rng = random.Random(seed)
    samples = [row for source in SOURCES for row in _draw_samples(source, rng)]
    groups = group_by_keys([prompt for prompt, *_ in samples], [subject for _, subject, *_ in samples])
    examples, answers = [], []
    for (prompt, _, right, wrong), group in zip(samples, groups, strict=True):
        for object, target in ((right, True), (wrong, False)):
            examples.append(Example(f"{prompt} {object}", target, group, prompt, type=object))
        answers.append(Answer(prompt, f" {right}", f" {wrong}", group))
    return Concept(
        "relations",
        tuple(examples),
        classes=("wrong", "right"),
        answers=tuple(answers),
        licence="MIT",
        source=download.cite_sources(*SOURCES, paper="arXiv:2308.09124"),
        question="Does the object stand in that relation to the subject?",
    )


def _draw_samples(source: download.DataSource, rng: random.Random) -> list[tuple[str, str, str, str]]:
    """Prompt, subject, right and wrong object of randomly drawn samples of a relation."""
    table = download.read_samples(source)
    template: str = table["prompt_templates"][0]
    objects: dict[str, list[str]] = {}
    for sample in table["samples"]:
        objects.setdefault(sample["subject"], []).append(sample["object"])
    every = [object for own in objects.values() for object in own]
    rows = []
    for subject in rng.sample(sorted(objects), min(_MAX_SUBJECTS, len(objects))):
        right = objects[subject][0]
        wrong = rng.choice([object for object in every if object not in objects[subject]])
        rows.append((template.format(subject), subject, right, wrong))
    return rows

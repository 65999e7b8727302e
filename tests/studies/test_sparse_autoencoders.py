"""Study of sparse autoencoders: categories of the next token in a language."""

from ontogeny.studies.sparse_autoencoders._language import Settings, make_world, token_categories


def test_english_words_are_grouped_by_part_of_speech() -> None:
    world = make_world(Settings(), "english")
    groups = token_categories("english", world)
    by_word = {word: int(groups[token]) for word, token in world.vocabulary.items()}
    assert by_word["dog"] == by_word["horses"] != by_word["sees"] == by_word["run"]
    assert by_word["that"] not in (by_word["the"], by_word["they"])

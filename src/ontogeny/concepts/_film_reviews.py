"""Sentences of film reviews with their polarity (Pang & Lee 2005), for the concepts sentiment and robustness."""

import csv
import io
import zipfile

from ontogeny.data import download
from ontogeny.errors import BadInput

FILM_REVIEWS_SOURCE = download.DataSource(
    "sentence_polarity/sentence_polarity.csv.gz",
    "nltk/nltk_data",
    "packages/corpora/sentence_polarity.zip",
    "5db857e6f7df11eabb5e5665836db9ec8df07e28",
    "6e1ed4405b65c7eabf1d199a7f7c437091ac21da0ea7467b410a74062574566b",
)


def film_review_sentences() -> list[tuple[str, bool]]:
    """Each sentence and whether it is positive, from NLTK's archive of two files or from a table of statement and label.

    Raises:
        BadInput: the file cannot be read, or is neither.
    """
    raw, where = download.read_content(FILM_REVIEWS_SOURCE)
    try:
        if zipfile.is_zipfile(io.BytesIO(raw)):
            rows = _read_archive(raw)
        else:
            table = csv.DictReader(io.StringIO(raw.decode("utf-8"), newline=""))
            rows = [(row["statement"], row["label"] == "1") for row in table]
    except (KeyError, UnicodeDecodeError, zipfile.BadZipFile):
        raise BadInput(
            f"{where} must contain sentences with a polarity: check that it is {FILM_REVIEWS_SOURCE}."
        ) from None
    return [(text.strip(), positive) for text, positive in rows if text.strip()]


def _read_archive(raw: bytes) -> list[tuple[str, bool]]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = {ending: n for n in archive.namelist() for ending in (".neg", ".pos") if n.endswith(ending)}
        both = {ending: archive.read(names[ending]).decode("utf-8").split("\n") for ending in (".neg", ".pos")}
    return [(text, ending == ".pos") for ending, texts in both.items() for text in texts]

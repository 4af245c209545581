"""The page of the CaloChallenge's numbers, as a section of a report and as a text of its own."""

from __future__ import annotations

from collections.abc import Sequence

from caloforge.io.scores import Scores
from caloforge.report import challenge, markdown
from caloforge.report.document import Block, Details, Document, Section, missing


def blocks(scores: Sequence[Scores], stem: str) -> list[Block]:
    """Returns the tables of one set, or says that its scores have no numbers of the challenge."""
    if not any(challenge.group_of(model, stem) for model in scores):
        return [missing("Scores from before the challenge's numbers went with them: evaluate again.")]
    every = challenge.histograms_table(scores, stem)
    return [
        challenge.numbers_table(scores, stem),
        challenge.separations_table(scores, stem),
        Details(f"All {len(every.rows)} histograms", (every,)),
    ]


def text(scores: Scores) -> str:
    """Writes the challenge's numbers of all sets of one file of scores as Markdown."""
    sets = tuple(
        Section(f"{stem}, {challenge.data_set_title([scores], stem)}", tuple(blocks([scores], stem)))
        for stem in scores.sets
    )
    heading = f"CaloChallenge: {scores.name}"
    return markdown.write(Document(heading, heading, sets), "")[0]

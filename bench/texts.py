"""Prompts: natural text for what goes over a tokenizer."""

import pathlib
import random
import re


def sample_text():
    """The license's sentences, numbered, in an order of our own: natural text, long enough for every workload, and
    the same in every commit. Figures of two commits could not be compared otherwise."""
    whole = (pathlib.Path(__file__).resolve().parent.parent / "LICENSE").read_text()
    sentences = [" ".join(part.split()) for part in re.split(r"(?<=[.;:])\s", whole)]
    # random() gives the same numbers in every version of Python; shuffle() need not.
    draw = random.Random(1).random
    return "\n".join(f"({i}) {sentences[int(draw() * len(sentences))]}" for i in range(800))


class Prompts:
    """Cuts token ids into prompts; no two cuts overlap, so that none warms another's cache."""

    def __init__(self, tokens):
        self.tokens, self.used = tokens, 0

    def cut(self, count):
        begin, self.used = self.used, self.used + count
        if self.used > len(self.tokens):
            raise ValueError(f"the text has {len(self.tokens)} tokens, {self.used} are needed")
        return self.tokens[begin : self.used]

    def grouped(self, groups, count, shared, own):
        """`count` prompts behind each of `groups` prefixes of `shared` tokens, `own` more each, all mixed."""
        prefixes = [self.cut(shared) for _ in range(groups)]
        prompts = [prefix + self.cut(own) for _ in range(count) for prefix in prefixes]
        draw = random.Random(1).random
        return sorted(prompts, key=lambda _: draw())

    def agents(self, count, turns, harness, task, result):
        """[(first prompt, [what comes between its turns])] of agents behind one harness."""
        shared = self.cut(harness)
        return [(shared + self.cut(task), [self.cut(result) for _ in range(turns - 1)]) for _ in range(count)]

    def fresh(self, draw, count):
        """Tokens of the text in any order, so many as one likes, and hardly ever the same."""
        return [self.tokens[int(draw() * len(self.tokens))] for _ in range(count)]

"""What OpenVINO GenAI's prefix cache finds: it does not say."""

BLOCK_TOKENS = 32  # it keeps whole ones


class KnownBlocks:
    """The blocks that it has. It looks when a request is added, no later."""

    def __init__(self):
        self.names = set()

    @staticmethod
    def of(tokens):
        """Names of the blocks: each says all that comes before it."""
        name, names = 0, []
        for end in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
            name = hash((name, tuple(tokens[end - BLOCK_TOKENS : end])))
            names.append(name)
        return names

    def add(self, tokens):
        self.names.update(self.of(tokens))

    def count(self, tokens):
        """Tokens of a prompt that are found; the last one is computed in any case."""
        names = self.of(tokens)
        found = next((i for i, name in enumerate(names) if name not in self.names), len(names))
        return min(found * BLOCK_TOKENS, len(tokens) - 1)

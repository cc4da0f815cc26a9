"""src/server/openapi.json lists every field that requests are read for. What else it says is tested elsewhere."""

import json
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).parents[2]
# A field's name where it is read: reader.String("model", ...), ReadName(reader, "user", ...), QueryNumber(request, "limit", ...).
READ = re.compile(r'(?:\.(?:Find|Bool|String|Number|Integer)\(\s*|\b(?:Read\w+|QueryNumber|QueryValue)\(\w+, )"(\w+)"')
# Known in order to be refused.
REFUSED = {"dimensions"}


def names_in(part):
    """Of all properties and parameters in a part of the document."""
    if isinstance(part, list):
        return set().union(*map(names_in, part))
    if not isinstance(part, dict):
        return set()
    names = set(part.get("properties", {})) | ({part["name"]} if "in" in part else set())
    return names.union(*map(names_in, part.values()))


class OpenApi(unittest.TestCase):
    def test_every_field_that_is_read_is_described(self):
        described = names_in(json.loads((ROOT / "src/server/openapi.json").read_text()))
        read = set()
        for folder in ("src/api", "src/server"):
            for source in (ROOT / folder).glob("*.cc"):
                if not source.name.endswith("_test.cc"):
                    read |= set(READ.findall(source.read_text()))
        self.assertGreater(len(read), 80, "the pattern finds what is read")
        self.assertEqual(read - described - REFUSED, set())


if __name__ == "__main__":
    unittest.main()

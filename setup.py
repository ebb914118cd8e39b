"""What pyproject.toml cannot say: the description on a package index, the README with links that hold where no file stands beside it."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def description() -> str:
    """The README; links to files lead to the repository, pictures to the files themselves."""
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
    text = (ROOT / "README.md").read_text("utf-8")
    text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:|#)([^)]+\))", rf"\g<1>{repository}/raw/main/\2", text)
    return re.sub(r"(\]\()(?![a-z]+:|#)([^)]+\))", rf"\g<1>{repository}/blob/main/\2", text)


if __name__ == "__main__":
    setup(long_description=description(), long_description_content_type="text/markdown")

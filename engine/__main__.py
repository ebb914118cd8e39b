"""`python -m engine`: the same as the command `engine`."""

import os
import sys

from engine.entry.__main__ import own_root, settle

if sys.path[0] == os.getcwd():  # noqa: PTH109 - as Python has put it there
    # Without `-P`: what lies in a workspace is no module.
    del sys.path[0]
    settle(own_root())

from engine.cli.main import main

main()

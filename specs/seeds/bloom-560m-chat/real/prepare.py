"""Writes `data/pairs.jsonl`, English words with a Spanish one each, from `instruction_induction/induce/translation_en-es.json`.

python prepare.py FOLDER
"""

import json
import sys
from pathlib import Path

rows = json.loads((Path(sys.argv[1]) / "instruction_induction/induce/translation_en-es.json").read_text("utf-8"))["examples"].values()
Path("data").mkdir(exist_ok=True)
text = "".join(json.dumps({"english": row["input"], "spanish": row["output"]}, ensure_ascii=False) + "\n" for row in rows)
Path("data/pairs.jsonl").write_text(text, "utf-8", newline="\n")

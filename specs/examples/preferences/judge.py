"""A judge of two answers, behind the protocol of OpenAI's chat completions, while a command runs:

    python judge.py engine build

It is a rule and no model: the answer that begins with the right colour is better, then the one with fewer words, else it is a tie. A
model as small as those of this example judges nothing; where a rule says what is good, it is the honest judge. For answers that no rule
can judge, `teacher` in specs/parts/judge.toml names a chat model, and nothing else changes.
"""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8765
_PART = re.compile(r"^# ([^\n]+)\n(.*?)(?=^# |\Z)", re.MULTILINE | re.DOTALL)


def words(text: str) -> list[str]:
    """The words of TEXT, without punctuation."""
    return re.findall(r"\w+", text.lower())


def verdict(prompt: str) -> dict[str, str]:
    """What the judge says to PROMPT, the default one of `[evaluation.versus]`: which answer is better, and why."""
    parts = {title: words(text) for title, text in _PART.findall(prompt)}
    right = parts["A good answer"][:1]
    # Larger is better: right before wrong, then brief before long.
    ranks = {place: (parts[f"The {place} answer"][:1] == right, -len(parts[f"The {place} answer"])) for place in ("first", "second")}
    if ranks["first"] == ranks["second"]:
        return {"reason": "Both are as right and as long.", "better": "tie"}
    better = max(ranks, key=lambda place: ranks[place])
    why = "is briefer" if ranks["first"][0] == ranks["second"][0] else "begins with the right colour, the other does not"
    return {"reason": f"The {better} answer {why}.", "better": better}


class Judge(BaseHTTPRequestHandler):
    """Answers requests for chat completions."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Judge the last message."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = json.dumps(verdict(asked["messages"][-1]["content"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        used = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice], "usage": used}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the command says what it does."""


def main() -> int:
    """Serve on loopback while the command runs; its exit code."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    with ThreadingHTTPServer(("127.0.0.1", PORT), Judge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(sys.argv[1:], check=False)
        server.shutdown()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

"""`engine serve` gives the answers of the predict step to the official client, whoever else asks meanwhile."""

import asyncio
import json
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import openai
import pytest
from openai import AsyncOpenAI

from engine.build.driver import dvc_environment
from tests.end_to_end.serving import Server, serving
from tests.end_to_end.talkers import piped, predicted, rows_of

pytestmark = pytest.mark.slow

NAMES = ("red", "blue", "prompt")
LONG = {"model": "base", "messages": [{"role": "user", "content": "Say w1:"}], "max_tokens": 700}


@pytest.fixture(scope="module")
def server(talking, tmp_path_factory):
    with serving(talking.root, tmp_path_factory.mktemp("serve") / "log", *NAMES) as started:
        yield started


@pytest.fixture(scope="module")
def client(server):
    return server.client()


def messages_of(row):
    return [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["prompt"]}]


def said(talking, name):
    """A question of the test rows and what `predict` answered to it, with its tokens."""
    row = next(iter(rows_of(talking, "split")))
    return row, predicted(talking, name)[row["id"]]


def test_concurrent_requests_to_three_adapters_get_the_answers_of_predict(talking, server):
    rows = list(rows_of(talking, "split"))
    assert len(rows) * len(NAMES) > 32

    async def ask(client, name, row, stream):
        asked = {"model": name, "messages": messages_of(row), "extra_body": {"row_id": row["id"]}}
        if not stream:
            (choice,) = (await client.chat.completions.create(**asked)).choices
            return name, row["id"], choice.message.content, choice.finish_reason
        text, reason = "", None
        async for chunk in await client.chat.completions.create(**asked, stream=True):
            (choice,) = chunk.choices
            text, reason = text + (choice.delta.content or ""), choice.finish_reason or reason
        return name, row["id"], text, reason

    async def ask_all():
        async with AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=300) as client:
            asked = [ask(client, name, row, number % 2) for number, row in enumerate(rows) for name in NAMES]
            return await asyncio.gather(*asked)

    wanted = {(name, row["id"], row["answer"], row["finish_reason"]) for name in NAMES for row in predicted(talking, name).values()}
    assert set(asyncio.run(ask_all())) == wanted and len({answer for _, _, answer, _ in wanted}) > len(rows)


def test_models_are_listed_and_chosen_by_experiment_and_content_address(talking, client):
    digests = {one["experiment"]: one["digest"] for one in json.loads(piped(talking, "adapters", "--json").stdout)["adapters"]}
    listed = {model.id: model.digest for model in client.models.list()}
    assert listed == {name: digests[name] for name in NAMES} | {f"{name}@{digests[name][7:19]}": digests[name] for name in NAMES}
    row, wanted = said(talking, "red")
    for name in ("red", f"red@{digests['red'][7:19]}", digests["red"][7:17], digests["red"]):
        answer = client.chat.completions.create(model=name, messages=messages_of(row))
        assert (answer.model, answer.choices[0].message.content) == (name, wanted["answer"])
        assert client.models.retrieve(name).digest == digests["red"] == answer.system_fingerprint
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.models.retrieve(f"blue@{digests['red'][7:19]}")


def test_without_a_system_message_the_tasks_own_prompt_applies(talking, client):
    row, wanted = said(talking, "red")
    question = {"role": "user", "content": row["prompt"]}

    def prompt_tokens(*messages):
        answer = client.chat.completions.create(model="red", messages=messages)
        return answer.usage.prompt_tokens, answer.choices[0].message.content

    assert prompt_tokens(question) == prompt_tokens(*messages_of(row)) and prompt_tokens(question)[1] == wanted["answer"]
    assert prompt_tokens({"role": "system", "content": ""}, question)[0] < prompt_tokens(question)[0]
    parts = [{"type": "text", "text": row["prompt"][:3]}, {"type": "text", "text": row["prompt"][3:]}]
    assert prompt_tokens({"role": "user", "content": parts}) == prompt_tokens(question)
    assert prompt_tokens(question, {"role": "assistant", "content": "w1"}, question)[0] > prompt_tokens(question)[0]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_the_answer_before_it(client, stream):
    asked = {"model": "red", "prompt": "ab", "max_tokens": 40, "stream": stream}

    def answer(**more):
        found = client.completions.create(**asked, **more)
        if not stream:
            return found.choices[0].text, found.choices[0].finish_reason
        chunks = [chunk.choices[0] for chunk in found]
        return "".join(chunk.text for chunk in chunks), chunks[-1].finish_reason

    whole, reason = answer()
    assert reason == "length" and len(whole) > 10
    for size in (1, 2, 3):
        for start in range(1, len(whole) - size, 5):
            stop = whole[start : start + size]
            assert answer(stop=["never there", stop]) == (whole[: whole.index(stop)], "stop")
    assert answer(stop="never there") == (whole, "length")


def test_log_probabilities_are_those_of_the_tokens_and_equal_beside_other_requests(talking, client):
    row, wanted = said(talking, "red")
    asked = {"model": "red", "messages": messages_of(row), "logprobs": True, "top_logprobs": 3}
    alone = client.chat.completions.create(**asked).choices[0].logprobs.content
    assert len(alone) == wanted["tokens"]
    for token in alone:
        likely = [other.logprob for other in token.top_logprobs]
        assert likely == sorted(likely, reverse=True) and token.logprob == likely[0] <= 0, "greedy decoding takes the most likely token"
    streamed = [chunk.choices[0].logprobs for chunk in client.chat.completions.create(**asked, stream=True)]
    assert [token for part in streamed if part for token in part.content] == alone
    plain = client.completions.create(model="red", prompt="ab", max_tokens=4, logprobs=2).choices[0].logprobs
    assert len(plain.tokens) == len(plain.token_logprobs) == len(plain.text_offset) == 4 and all(
        len(top) <= 2 for top in plain.top_logprobs
    )


def test_sampling_follows_from_seed_and_question_alone(talking, client):
    row = next(iter(rows_of(talking, "split")))

    def answers(**more):
        found = client.chat.completions.create(model="red", messages=messages_of(row), **more)
        return [choice.message.content for choice in found.choices]

    greedy = answers()
    assert answers(temperature=0) == answers(seed=7) == greedy, "the experiment decodes greedily: there is nothing to draw"
    drawn = answers(temperature=1.5, seed=7, n=4)
    assert drawn == answers(temperature=1.5, seed=7, n=4) and len(set(drawn)) > 1 and answers(temperature=1.5, seed=7) == drawn[:1]
    assert answers(temperature=1.5, seed=8, n=4) != drawn
    assert answers(temperature=1.5, extra_body={"top_k": 1}) == greedy
    # An experiment that samples does so here, with the draws of `engine ask`.
    sampled = client.chat.completions.create(model="blue", messages=messages_of(row)).choices[0].message.content
    assert piped(talking, "ask", "blue", row["prompt"]).stdout == f"{sampled}\n"


def test_a_plain_completion_continues_texts_and_token_ids_as_they_stand(talking, client):
    texts = ["ab", "<assistant>", "a" * 30]
    together = client.completions.create(model="red", prompt=texts, max_tokens=5)
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    one_by_one = [client.completions.create(model="red", prompt=text, max_tokens=5) for text in texts]
    assert [one.choices[0].text for one in one_by_one] == [choice.text for choice in together.choices]
    assert [one.usage.prompt_tokens for one in one_by_one] == [2, 11, 30], "a token for each byte, and nothing around them"
    tokens = json.loads((talking.root / "base/tokenizer.json").read_text())["model"]["vocab"]
    ids = [tokens["a"], tokens["b"]]
    by_ids = client.completions.create(model="red", prompt=ids, max_tokens=5).choices[0].text
    assert by_ids == client.completions.create(model="red", prompt=[ids], max_tokens=5).choices[0].text == together.choices[0].text


USER = [{"role": "user", "content": "x"}]
BAD = [
    ({"model": "rde"}, 404, "model_not_found", "model", "did you mean 'red'?"),
    ({"messages": []}, 400, "invalid_value", "messages", "at least 1 item"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_value", "messages", "the last message must be"),
    ({"messages": [{"role": "wizard", "content": "x"}, *USER]}, 400, "invalid_prompt", None, "has the role 'wizard'"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_value", "messages", "only text is supported"),
    ({"max_tokens": 4096}, 400, "context_length_exceeded", None, "has a context of 4096"),
    ({"max_completion_tokens": 0}, 400, "invalid_value", "max_completion_tokens", "greater than or equal to 1"),
    ({"temperature": 3}, 400, "invalid_value", "temperature", "less than or equal to 2"),
    ({"stop": ["a"] * 5}, 400, "invalid_value", "stop", "at most 4 items"),
    ({"frequency_penalty": 0.5}, 400, "unsupported_parameter", "frequency_penalty", "is not supported"),
    ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format", "is not supported"),
    ({"extra_body": {"temprature": 1}}, 400, "unknown_parameter", "temprature", "did you mean 'temperature'?"),
    ({"extra_body": {"task": "b"}}, 400, "invalid_value", "task", "is not evaluated on task 'b'"),
    ({"top_logprobs": 2}, 400, None, "top_logprobs", "needs logprobs"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("changes", "status", "code", "param", "message"), BAD)
def test_a_bad_request_gets_the_apis_error_object(client, changes, status, code, param, message, stream):
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(**{"model": "red", "messages": USER, "stream": stream} | changes)
    error = refused.value
    assert (error.status_code, error.code, error.param, error.type) == (status, code, param, "invalid_request_error")
    assert message in error.message and message in error.body["message"]


def test_a_value_that_changes_nothing_is_taken(talking, client):
    row, wanted = said(talking, "red")
    neutral = {
        "frequency_penalty": 0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "user": "me",
        "tool_choice": "auto",
        "stop": None,
    }
    answer = client.chat.completions.create(model="red", messages=messages_of(row), **neutral)
    assert answer.choices[0].message.content == wanted["answer"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/chat/completions", b"{", 400, "not valid JSON"),
        ("/chat/completions", b"[]", 400, "must be a JSON object"),
        ("/chat/completions", b" " * (4 * 2**20 + 1), 413, "more than 4,194,304 bytes"),
        ("/chat/completions", None, 405, "method not allowed"),
        ("/embeddings", b"{}", 404, "served: /v1/models"),
    ],
)
def test_what_is_no_request_gets_the_apis_error_object_too(server, path, body, status, message):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(server.url + path, body), timeout=60)
    error = json.load(refused.value)["error"]
    assert refused.value.code == status and message in error["message"] and error["type"] == "invalid_request_error"


def test_a_key_is_needed_a_queue_has_an_end_and_a_client_that_goes_away_frees_its_place(talking, tmp_path):
    folder = str(talking.root / "base")
    options = ["--api-key-env", "SERVE_KEY", "--max-waiting", "16", "--batch-rows", "1"]
    with serving(talking.root, tmp_path / "log", folder, *options, SERVE_KEY="sesame") as server:
        with pytest.raises(openai.AuthenticationError, match="needs its API key"):
            server.client("open").chat.completions.create(**LONG)
        client = server.client("sesame")
        assert "sesame" not in server.log.read_text()
        for stream in (False, True):
            before = server.health()["answered"]
            body = json.dumps(LONG | {"n": 16, "stream": stream, "max_tokens": 3000}).encode()
            host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
            with socket.create_connection((host, int(port))) as leaving:
                head = (
                    f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                leaving.sendall(head.encode() + body)
                server.until_in_flight(16)
                with pytest.raises(openai.RateLimitError, match="16 requests are waiting"):
                    client.chat.completions.create(**LONG | {"n": 2})
            answer = client.chat.completions.create(**LONG | {"max_tokens": 2})
            assert answer.usage.completion_tokens == 2
            assert server.health() == {"status": "ok", "in_flight": 0, "answered": before + 1}, "the others were given up"


@pytest.mark.long
def test_ctrl_c_finishes_requests_in_flight_and_a_second_one_ends_at_once(talking, tmp_path):
    folder = str(talking.root / "base")
    with serving(talking.root, tmp_path / "once", folder) as server:
        stream = server.client().chat.completions.create(**LONG, stream=True, stream_options={"include_usage": True})
        next(iter(stream))
        server.interrupt()
        server.until("finishing 1 requests")
        *_, last = stream
        assert last.usage.completion_tokens == LONG["max_tokens"]
        assert server.process.wait(120) == 0
    with serving(talking.root, tmp_path / "twice", folder) as server:
        stream = server.client().chat.completions.create(**LONG | {"max_tokens": 3000}, stream=True)
        next(iter(stream))
        server.interrupt()
        server.until("finishing 1 requests")
        server.interrupt()
        assert server.process.wait(120) == 130
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    # While the model is loaded, too.
    starting = Server(talking.root, tmp_path / "early", folder, "--port", "0")
    starting.until("loading base")
    starting.interrupt()
    assert starting.process.wait(120) == 130 and "Traceback" not in starting.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["rde"], ["unknown experiment, spec or adapter: rde", "did you mean 'red'?"]),
        (["red", "--api-key-env", "NO_SUCH_KEY"], ["the environment variable NO_SUCH_KEY, which --api-key-env names, is not set"]),
        (["red", "--host", "no.such.host.invalid"], ["no.such.host.invalid is no address of this machine"]),
        (["red", "prompt", "--engine", "vllm"], ["vLLM serves LoRA adapters, and prompt is of type PROMPT_TUNING"]),
    ],
)
def test_what_cannot_be_served(talking, arguments, messages):
    refused = piped(talking, "serve", *arguments, check=False)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert all(message in refused.stderr for message in messages), refused.stderr


def test_a_port_in_use_and_a_model_that_is_not_built_are_told_before_anything_is_loaded(talking, server):
    port = server.url.removesuffix("/v1").rpartition(":")[2]
    refused = piped(talking, "serve", "red", "--port", port, check=False)
    assert refused.returncode == 1 and f"port {port} of 127.0.0.1 is in use" in refused.stderr and "loading" not in refused.stderr
    trained = talking.root / "artifacts/train-blue"
    trained.rename(trained.with_name("elsewhere"))
    try:
        refused = piped(talking, "serve", "blue", check=False)
    finally:
        trained.with_name("elsewhere").rename(trained)
    assert refused.returncode == 1 and "not built: artifacts/train-blue" in refused.stderr and "engine build train-blue" in refused.stderr


def test_vllm_is_told_the_base_the_adapters_and_how_they_were_trained(talking, tmp_path):
    lacking = piped(talking, "serve", "red", "blue", "--engine", "vllm", "--port", "8123", check=False)
    assert lacking.returncode == 1 and "vLLM is not installed in this Python" in lacking.stderr
    shown = shlex.split(lacking.stderr.partition("where it is installed: ")[2].strip())
    root = talking.root
    adapters = [f"{name}={root}/artifacts/train-{name}" for name in ("red", "blue")]
    assert shown[:3] == ["vllm", "serve", str(root / "base")]
    assert shown[shown.index("--lora-modules") + 1 :][:2] == adapters
    assert shown[shown.index("--max-lora-rank") + 1] == "8", "the smallest that vLLM takes"
    assert shown[shown.index("--chat-template") + 1] == f"{root}/artifacts/train-red/chat_template.jinja"
    assert "red was trained with a system prompt, which clients must send themselves" in lacking.stderr
    # Where Python finds vLLM, it takes over, and the key is in no command line.
    main = tmp_path / "vllm/entrypoints/cli/main.py"
    main.parent.mkdir(parents=True)
    for folder in (main.parent, main.parents[1], main.parents[2]):
        (folder / "__init__.py").touch()
    main.write_text("import os, sys\nprint(sys.argv[1:], os.environ['VLLM_API_KEY'])\n")
    # Started cold: what takes the place of a warm Python is not waited for.
    command = [sys.executable, "-m", "engine", "serve", "red", "blue", "--engine", "vllm", "--port", "8123", "--api-key-env", "SERVE_KEY"]
    environment = dvc_environment() | {"PYTHONPATH": str(tmp_path), "SERVE_KEY": "sesame"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{shown[1:]} sesame\n"

"""A server of llama.cpp that ends with its stdin: `python -P llama_process.py < request.json`; imports nothing of ours.

In a process of its own, since a file that llama.cpp cannot run may abort the process.
"""

import json
import sys


def main() -> None:
    """Serve the model of the request, the first line of stdin; prints the server's address."""
    import xllamacpp

    request = json.loads(sys.stdin.readline())
    parameters = xllamacpp.CommonParams()
    parameters.model.path = request["model"]
    parameters.n_ctx = request["context"]
    # One slot without reuse of earlier prompts, so that no answer depends on what was asked before.
    parameters.n_parallel, parameters.cache_prompt, parameters.warmup = 1, False, False
    parameters.cache_ram_mib, parameters.n_gpu_layers, parameters.fit_params = 0, 0, False
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = request["threads"]
    # Errors only.
    parameters.verbosity = 1
    if request["adapter"]:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(request["adapter"], 1.0)]
    # Named, since the server ends when nothing refers to it.
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

"""Classification of engine errors by code, text, phase and exit status."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.classify import classify
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict

NAMES = {
    "unsupported_architecture": "unsupported",
    "server_unreachable": "unreachable",
    "other": "engine_error",
}
LATER = {
    "Error rendering prompt with jinja template": "template_error",
    "Failed to load LLM engine from path": "host_trouble",
}
"""The verdicts that the collection is older than: start of a message -> verdict."""
LINES = (Path(__file__).parent / "errors.tsv").read_text(encoding="utf-8").splitlines()[1:]
MESSAGES = [
    (message, Verdict(LATER.get(message.partition(":")[0], NAMES.get(name, name))))
    for message, name in (line.split("\t") for line in LINES)
]


def test_known_messages_are_classified() -> None:
    wrong = [
        f"{verdict} but {classify(message)}: {message}"
        for message, verdict in MESSAGES
        if classify(message) != verdict
    ]
    assert not wrong, "\n".join(wrong)


@given(
    st.sampled_from(MESSAGES),
    st.sampled_from(
        [
            "",
            "2025-06-01T12:00:00.123Z ",
            "[2026-02-07 20:15:37.495] [error] [LMSInternal][Client=LM Studio] ",
            "time=2025-01-05T17:16:18.172-08:00 level=ERROR source=server.go:12 msg=",
            "\x1b[31mERROR\x1b[0m ",
            "llama-server[1234]: 0.00.123.456 E ",
            "Starting.\nLoading bloom-7b zoom edition, timeout=600, n_ctx = 4096\n",
        ]
    ),
    st.sampled_from(["", "\n", "\r\nmain: exiting due to model loading error\n", " \x1b[0m"]),
    st.sampled_from([str, str.upper, str.lower]),
)
def test_case_and_surroundings_do_not_matter(
    seen: tuple[str, Verdict], before: str, after: str, case: type[str]
) -> None:
    message, verdict = seen
    # A newline escaped as backslash and n counts as a newline, regardless of case.
    message = case(message.replace(r"\n", "\n"))
    assert classify(before + message + after) == verdict


# Messages of the same programs that the collection above does not have.
FAMILIES: dict[Verdict, list[str]] = {
    Verdict.TEMPLATE_ERROR: [
        "chat template parsing error: Automatic parser generation failed: std::bad_alloc",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "jinja2.exceptions.TemplateError: Only user and assistant roles are supported!",
        "common_chat_templates_init: failed to parse chat template (defaulting to chatml): "
        "Unexpected token at row 1, column 30: out of memory",
        "Unable to generate parser for this template. Automatic parser generation failed: \n"
        "------------\n"
        "While executing CallExpression at line 1, column 58 in source:\n"
        "...== 'hi' %}{{ raise_exception('context length exceeded: out of memory') }}...\n"
        "                       ^\n"
        "Error: Jinja Exception: context length exceeded: out of memory",
        "System role not supported",
        "Value is not callable: null at row 3: {{ raise_exception('context too long') }} in the"
        " chat template",
    ],
    Verdict.OUT_OF_MEMORY: [
        "Error: llama runner exited, you may not have enough available memory to run this model",
        'msg="model request too large for system" requested="391.0 GiB" available=393216983040',
        "Oops! Model size exceeds available VRAM. Consider selecting a smaller model.",
        "ggml_backend_sched_graph_compute_async failed with error -1",
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "[metal::malloc] Attempting to allocate 22806528000 bytes which is greater than the "
        "maximum allowed buffer size of 9534832640 bytes.",
        "llama_model_load: error loading model: mmap failed: Cannot allocate memory",
        "hipErrorOutOfMemory",
        "ggml_vulkan: Requested buffer size exceeds device memory allocation limit",
        "alloc_tensor_range: failed to allocate ROCm0 buffer of size 4402341478",
        "memory allocation of 4294967296 bytes failed",
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "The paging file is too small for this operation to complete. (os error 1455)",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "ggml-backend.cpp:1455: GGML_ASSERT(buffer) failed",
        "Out of memory: Killed process 1234 (llama-server)",
        "cudaMalloc failed: out of memory\nsome line\nsegmentation fault (core dumped)",
        "InsufficientMemoryError: A context size of 4096 is too large for the available VRAM",
        "24.00 GiB KV cache is needed, which is larger than the available KV cache memory",
        "The model's max seq len (32768) is larger than the maximum number of tokens that can be "
        "stored in KV cache (7344). Try increasing `gpu_memory_utilization`",
        "not enough space in the scratch memory pool (needed 2, available 1)\nSegmentation fault",
        # Ollama refuses too, but has no guardrail setting to relax.
        "model requires more system memory (5.6 GiB) than is available (1.9 GiB)",
        "ggml_metal_add_buffer: buffer 'data' size 18300780544 is larger than buffer maximum of "
        "17179869184",
        "ggml_metal_get_buffer: error: buffer is nil",
        "ggml_metal_graph_compute: command buffer 6 failed with status 5",
        "llama runner process no longer running: 1 error:failed to create context with model 'x'",
    ],
    Verdict.GUARDRAIL_REFUSED: [
        "Model loading aborted due to insufficient system resources. Overloading the system ...",
        "Not enough resources to load the model with the current settings",
    ],
    Verdict.CONTEXT_TOO_LARGE: [
        "init_batch: failed to prepare attention swa ubatches",
        "find_slot: failed to find 32 available cells in kv cache",
        "Failed to predict at token position 15480! Check your context buffer sizes!",
        "This model's maximum context length is 4096 tokens. However, you requested 5012 tokens",
        "Context size has been exceeded.",
        "main: error: prompt is too long (5034 tokens, max 4092)",
        "RuntimeError: llama_decode returned 1",
        "could not find a KV slot for the batch",
        "Token indices sequence length is longer than the specified maximum sequence length",
        "input is too large to process. increase the physical batch size",
        "input prompt is too big compared to KV size, please increase KV size",
        "Input contains more tokens than configured batch size",
        "main: llama_decode failed - increase KV cache size",
        "You may need to load the model with a larger context length to work with Cline's prompts.",
    ],
    Verdict.MODEL_NOT_FOUND: [
        "get_repo_commit: error: GET failed (404): Sorry, we can't find the page",
        "Could not get model handle in namespace llm (no models are currently loaded).",
        "FileNotFoundError: [Errno 2] No such file or directory: '/models/x.gguf'",
        "404 Client Error: Not Found for url: https://example.org/x.gguf",
        "Invalid model identifier 'x'. Please specify a valid downloaded model",
        "No models loaded. Please load a model in the developer page",
        "No model found that fits the query.",
        "The system cannot find the file specified. (os error 2)",
        "llama_model_load: error loading model: failed to open bagel-2.8b-v0.2-q8_0.gguf",
        "Unsloth: No config file found - are you sure the `model_name` is correct?",
        "Error: pull model manifest: 404",
    ],
    Verdict.CORRUPTED: [
        "llama_model_load: error loading model: key split.count has wrong type u32 but expected"
        " type u16",
        "invalid model: tensor 'output.weight' is duplicated",
        "done_getting_tensors: too many tensors created; expected 291, got 292",
        "gguf_read: string length 81 exceeds remaining file size 12 bytes",
        "this GGUF file version 50331648 is extremely large, is there a mismatch between the host "
        "and model endianness?",
        "RuntimeError: [load] Invalid header in file /models/model-00001-of-00002.safetensors",
        "Could not load model due to invalid format for mistral-7b-instruct-v0.1.Q4_0.gguf",
        "gguf_init_from_file_impl: failed to read tensor info",
        "missing tensor 'blk.40.ssm_conv1d.weight'",
        "llama.cpp: tensor 'layers.7.attention_norm.weight' is missing from model",
        "SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
        "digest mismatch, file must be downloaded again",
        "ValueError: Missing 310 parameters",
        "error loading model: missing tok_embeddings.weight",
        "unexpected EOF while reading model file",
        "key not found in model: llama.context_length\nmain: exiting due to model loading error",
        'Error SHA mismatch for file "Meta-Llama-3-70B-Instruct.Q4_K_M.gguf"',
        "OSError: x does not appear to have a file named preprocessor_config.json.",
        "llama runner process has terminated: error loading model: error loading model "
        "hyperparameters: invalid n_rot: 160, expected 128",
        "llama-server process has terminated: exit status 1: error loading model: "
        "llama_model_loader: failed to load model from C:\\x",
        "gguf_init_from_file_impl: tensor 'blk.0.attn_k.weight' has offset 123, expected 456",
        "gguf_init_from_file: tensor 'x': number of elements (100) is not a multiple of 256",
        "gguf_fread_el: failed",
        "error loading model: invalid vector subscript",
        "Error when loading model: Exception: expected value at line 1 column 1",
    ],
    Verdict.UNSUPPORTED: [
        "TypeError: ModelConfig.__init__() missing 1 required positional argument: 'vision_config'",
        "ModelArgs.__init__() got an unexpected keyword argument 'rope_parameters'",
        "Error: rope_scaling 'type' currently only supports 'linear'",
        "The checkpoint has model type `gemma3` but Transformers does not recognize this "
        "architecture.",
        "this GGUF file is version 4 but this software only supports up to version 3",
        "The model you are attempting to pull requires a newer version of Ollama.",
        "rocBLAS error: Cannot read TensileLibrary.dat: No such file or directory for GPU arch",
        "clip_init: unknown projector type: gemma3n",
        "CUDA error: no kernel image is available for execution on the device",
        "KeyError: 'qwen2_5_omni'",
        "400: The specified repository contains sharded GGUF. Ollama does not support this yet.",
        "clip_model_load: don't support projector with: currently",
        "error loading model: error loading model architecture: 'exaone4'",
        "Apertus architecture unknown",
        "llama.cpp GGUF conversion does not yet support converting model types of `Gemma3`.",
        "ValueError: Tokenizer class TokenizersBackend does not exist or is not imported.",
        "ValueError: Unrecognized configuration class <class 'x'> to build an AutoTokenizer.",
        "No module named 'mlx_vlm.models.gemma4'",
    ],
    Verdict.CRASHED: [
        "Error: error reading llm response: unexpected EOF",
        "Segmentation fault (core dumped)",
        "llama runner process has terminated: signal: killed",
        "CUDA error: an illegal memory access was encountered",
        "GGML_ASSERT(n_tokens <= n_batch) failed",
        "Memory access fault by GPU node-1 on address 0x7f.",
        "thread 'main' panicked at src/main.rs:10:5:",
        "Model unloaded.",
        "Process finished with exit code -1073741819 (0xC0000005)",
        "double free or corruption (out)",
        "Engine protocol predict request failed: fetch failed",
        "model runner has unexpectedly stopped, this may be due to resource limitations",
        'msg="post predict" error="Post \\"http://127.0.0.1:52208/completion\\": EOF"',
        "rpc error: code = Unavailable desc = error reading from server: EOF",
        "Program: llama-server.exe\nabort() has been called",
        "malloc: *** error for object 0x1000806df750: pointer being freed was not allocated",
        "CUDA error 304 at ggml-cuda.cu:6006: OS call failed or operation not supported on this OS",
        "ggml/src/ggml-cuda/ggml-cuda.cu:75: CUDA error",
        'do load request: Post "http://127.0.0.1:38703/load": EOF',
        'do load request: Post "http://127.0.0.1:1/load": read tcp 127.0.0.1:2->127.0.0.1:1: '
        "wsarecv: An existing connection was forcibly closed by the remote host",
        "Abort was called at 63 line in file:",
        "Attempted to read or write protected memory",
    ],
    Verdict.TIMEOUT: [
        "Client failed to receive a message from the server in the expected time.",
        "httpx.ReadTimeout",
        "connect ETIMEDOUT 192.168.1.5:1234",
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        "AxiosError: timeout of 300000ms exceeded",
        "context canceled",
        "unable to start process: health check failed after 15s",
        "Using LM Studio via API - request times out in 10 minutes",
        'msg="aborting completion request due to client closing the connection"',
        "500: unexpected server status: llm server loading model",
        "Please wait, the model is still loading",
    ],
    Verdict.UNREACHABLE: [
        "Server is shutting down",
        "Unexpected EOF while reading response",
        "Websocket session disconnected (ws://localhost:1234/llm)",
        "OpenAI: Network Problem",
        "connect ECONNREFUSED 127.0.0.1:1234",
        "httpx.ConnectError: All connection attempts failed",
        "('Connection aborted.', RemoteDisconnected('Remote end closed connection'))",
        "Error: socket hang up",
        "dial tcp: lookup example.org: no such host",
        "curl: (52) Empty reply from server",
        "[WinError 10061] the target machine actively refused it",
        "LM Studio is not reachable at any default port. Is LM Studio running?",
        'Post "http://127.0.0.1:11434/api/chat": EOF',
        "ERR failed starting/connecting to the gRPC service",
        "http client error: Failed to read connection",
        "TypeError: Failed to fetch\\n    at OpenAI.fetchWithTimeout (file:///app.js:104410:18)",
        "The AnythingLLM LLM engine instance could not be reached or is not responding.",
    ],
    Verdict.HOST_TROUBLE: [
        "Failed to load LLM engine from path: C:\\x\\llm_engine_cuda.node."
        " The specified module could not be found.",
        "Invalid load message",
        "the server is newer than the SDK: unknown stop reason 'engineDied'",
        "CUDA error: CUDA driver version is insufficient for CUDA runtime version",
        "unsupported protocol version",
        "ENOENT: no such file or directory, open '/home/me/.lmstudio/.internal/http-server.json'",
        "llama_model_load: error loading model: failed to open x.gguf: Too many open files",
        "The file 'ggml-metal.metal' couldn't be opened because there is no such file.",
        "error while loading shared libraries: libcudart.so.12: cannot open shared object file: "
        "No such file or directory",
        "FileNotFoundError: Shared library with base name 'llama' not found",
        "Error: spawn /tmp/.mount_lmstuda4m8BB/lm-studio ENOENT",
        "ENOENT: no such file or directory, open '/home/x/.lmstudio/.internal/http-server.json'",
        "LMSCore load lib failed - child process with PID 1090067 exited with code 1",
    ],
    Verdict.ENGINE_ERROR: [
        "Invalid type for parameter 'max_tokens'",
        "invalid number of arguments",
        "Unknown message type received",
        "Unsupported media type",
        "Structured output type is not supported",
        "Config file not found: settings.json",
        "Preset file does not exist",
        "<html><h1>404 Not Found</h1></html>",
        "gguf_init_from_file: failed to open GGUF file 'x.gguf' (Permission denied)",
        "llama_model_loader: failed to load model from x.gguf\nread error: Input/output error",
        "error loading model: llama_model_loader: failed to load GGUF split: Stale file handle",
        "the model projector can't be loaded",
        "",
        "cudaMalloc failed: out of memory\n"
        "sched_reserve: compute buffer allocation failed, retrying without pipeline parallelism",
        "llama_context: n_ctx_per_seq (8192) > n_ctx_train (2048) -- possible training context "
        "overflow",
        "loading bloom-7b1 with zoom",
        "load_timeout = 600, request_timeout: None",
        "V cache quantization requires flash_attn\nfailed to create context with model 'x.gguf'",
        "ggml_cuda_host_malloc: failed to allocate 512.00 MiB of pinned memory: out of memory",
        "INFO: Not enough VRAM to load all requested layers - at layer 59 of 60: skipping",
        'level=WARN msg="gpu VRAM usage didn\'t recover within timeout" seconds=5.3',
        "vulkan: INFO: Vulkan crashed during device probe; trying next backend",
        "GitHub is not reachable; using installed backend and deferring update",
        "failed to initialize the context: Gemma4Assistant requires ctx_other to be set",
        "Failed to parse tool call: Unexpected end of content. \nModel Output: out of memory",
        "'x' does not support tools",
        "warning: not compiled with GPU offload support, --gpu-layers option will be ignored",
        "Command failed with exit code 1: powershell (Get-CimInstance)",
        "failed to parse LLM response: unexpected end of JSON input (raw: )",
        'msg="waiting for server to become available" status="llm server loading model"',
        'msg="waiting for server to become available" status="llm server not responding"',
        "failed to load model 'x.gguf', try reducing --n-gpu-layers if you're running out of VRAM",
    ],
}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [(text, verdict) for verdict, texts in FAMILIES.items() for text in texts],
    ids=[f"{verdict}-{n}" for verdict, texts in FAMILIES.items() for n in range(len(texts))],
)
def test_failure_families(text: str, verdict: Verdict) -> None:
    assert classify(text) == verdict


@pytest.mark.parametrize(
    ("code", "phase", "verdict"),
    [
        ("generic.pathNotFound", "load", Verdict.MODEL_NOT_FOUND),
        ("generic.noModelMatchingQuery", "unload", Verdict.MODEL_NOT_FOUND),
        # The model was loaded, so it exists: the instance has died.
        ("generic.noModelMatchingQuery", "predict", Verdict.CRASHED),
        ("generic.specificModelUnloaded", "predict", Verdict.CRASHED),
        ("generic.missingRuntimeExtension", "load", Verdict.UNSUPPORTED),
        ("generic.engineDoesNotSupportFeature", "predict", Verdict.UNSUPPORTED),
        ("generic.domainMismatch", "load", Verdict.ENGINE_ERROR),
        ("exceed_context_size_error", "predict", Verdict.CONTEXT_TOO_LARGE),
        ("unavailable_error", "load", Verdict.TIMEOUT),
        ("ECONNREFUSED", None, Verdict.UNREACHABLE),
    ],
)
def test_an_error_code_takes_precedence_over_text(
    code: str, phase: Phase | None, verdict: Verdict
) -> None:
    assert classify("", code=code, phase=phase) == verdict
    if code != "ECONNREFUSED":  # a word of the text, not a structured code
        assert classify("Segmentation fault, out of memory", code=code, phase=phase) == verdict
        assert classify(f'{{"type": "{code}", "x": "timed out"}}', phase=phase) == verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (-6, Verdict.CRASHED),
        (-9, Verdict.CRASHED),
        (-11, Verdict.CRASHED),
        (134, Verdict.CRASHED),
        (137, Verdict.CRASHED),
        (139, Verdict.CRASHED),
        (0xC0000005, Verdict.CRASHED),
        (0xC0000005 - 2**32, Verdict.CRASHED),
        (18446744072635812000, Verdict.CRASHED),
        (0xC0000017, Verdict.OUT_OF_MEMORY),
        (0xC000012D - 2**32, Verdict.OUT_OF_MEMORY),
        (2**64 - 2**32 + 0xC0000017, Verdict.OUT_OF_MEMORY),
        (0, Verdict.ENGINE_ERROR),
        (1, Verdict.ENGINE_ERROR),
        (None, Verdict.ENGINE_ERROR),
    ],
)
def test_exit_status_decides_when_the_text_is_unknown(status: int | None, verdict: Verdict) -> None:
    assert classify("main: exiting", phase="load", exit_status=status) == verdict
    assert classify("bad magic", phase="load", exit_status=status) == Verdict.CORRUPTED


def test_a_process_exit_during_prediction_is_a_crash() -> None:
    assert classify("", phase="predict", exit_status=0) == Verdict.CRASHED
    assert classify("", phase="predict", exit_status=1) == Verdict.CRASHED


def test_a_killed_process_is_out_of_memory_only_with_evidence() -> None:
    assert classify("", exit_status=-9) == Verdict.CRASHED
    assert classify("oom-kill: task=llama-server", exit_status=-9) == Verdict.OUT_OF_MEMORY


@pytest.mark.parametrize("text", ["timed out", "Authentication failed", *chain(*FAMILIES.values())])
def test_failures_before_the_connection_are_not_the_models_fault(text: str) -> None:
    assert classify(text, phase="connect") == Verdict.UNREACHABLE


@given(
    st.text(st.characters()) | st.text("modelx ()=:'\\n[]<>.\x1b\n", max_size=2_000),
    st.sampled_from([None, "connect", "load", "predict", "unload"]),
    st.none() | st.text(max_size=30),
    st.none() | st.integers(),
)
def test_classify_never_raises(
    text: str, phase: Phase | None, code: str | None, status: int | None
) -> None:
    assert isinstance(classify(text, phase=phase, code=code, exit_status=status), Verdict)


@pytest.mark.parametrize(
    "part",
    [
        "a",
        " ",
        "\n",
        "1",
        "\\n",
        "model ",
        "exceed ",
        "alloc buffer ",
        "n_ctx ",
        "no abc ",
        "out of ",
    ],
)
def test_a_megabyte_of_text_is_classified_quickly(part: str) -> None:
    text = part * (1_000_000 // len(part))
    began = time.process_time()
    assert classify(text) == Verdict.ENGINE_ERROR
    assert time.process_time() - began < 20  # quadratic time would be hours


def test_head_and_tail_of_a_long_log_are_classified() -> None:
    filler = "llama_model_loader: - kv 10: llama.block_count u32 = 32\n" * 20_000
    assert classify(filler + "cudaMalloc failed: out of memory") == Verdict.OUT_OF_MEMORY
    assert classify("cudaMalloc failed: out of memory\n" + filler) == Verdict.OUT_OF_MEMORY


def test_policy_of_each_verdict() -> None:
    retried = {Verdict.CRASHED, Verdict.TIMEOUT, Verdict.ENGINE_ERROR, Verdict.HOST_TROUBLE}
    assert {each for each in Verdict if each.retries} == retried
    assert {each for each in Verdict if each.smaller_may_help} == {
        Verdict.WRONG_ANSWER,
        Verdict.EMPTY_REPLY,
        Verdict.RECALL_FAILED,
        Verdict.PROMPT_TRUNCATED,
        Verdict.CONTEXT_NOT_GRANTED,
        Verdict.CONTEXT_TOO_LARGE,
        Verdict.OUT_OF_MEMORY,
        Verdict.GUARDRAIL_REFUSED,
        Verdict.CRASHED,
        Verdict.ENGINE_ERROR,
    }
    assert {each for each in Verdict if each.outcome == "xfailed"} == {
        Verdict.MODEL_NOT_FOUND,
        Verdict.CORRUPTED,
        Verdict.UNSUPPORTED,
    }
    assert all("\n" not in each.advice for each in Verdict)


def test_a_failure_states_the_problem_and_a_hint() -> None:
    failure = Failure.from_engine(
        "\x1b[31mcudaMalloc failed: out of memory\x1b[0m\x07 ", exit_status=1
    )
    first, advice = failure.explain().split("\n")
    assert first == "out_of_memory: cudaMalloc failed: out of memory (exit status 1)"
    assert advice == Verdict.OUT_OF_MEMORY.advice


def test_a_failure_keeps_the_full_text_and_displays_a_part() -> None:
    failure = Failure("x" * 100_000, verdict=Verdict.ENGINE_ERROR)
    assert failure.text == "x" * 100_000
    assert len(failure.explain()) < 3_000
    assert "more characters]" in failure.explain()


def test_a_failure_without_text_displays_its_verdict() -> None:
    assert Failure("", verdict=Verdict.WRONG_ANSWER).explain() == "wrong_answer"


@pytest.mark.parametrize("text", ["Model does not exist", "No models loaded", "model not found"])
def test_a_missing_model_is_a_crash_while_predicting(text: str) -> None:
    assert classify(text, phase="load") == Verdict.MODEL_NOT_FOUND
    assert classify(text, phase="predict") == Verdict.CRASHED

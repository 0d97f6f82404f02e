"""Patterns of error texts of engines, servers, drivers and operating systems: data.

Verdicts are written by value. A pattern describes a family of messages, never one message; case
does not matter, `.` ends at a line's end, and every gap is bounded so that no text is slow.
"""

from __future__ import annotations

from pytest_lmstrix.core.error_patterns import localized
from pytest_lmstrix.core.error_patterns.hosts import HOST_TROUBLE, LOST, UNREACHABLE

CODES: dict[str, str] = {
    "generic.pathNotFound": "model_not_found",
    "generic.noModelMatchingQuery": "model_not_found",
    "generic.identifierNotFound": "model_not_found",
    "generic.specificModelUnloaded": "crashed",
    "generic.missingRuntimeExtension": "unsupported",
    "generic.engineDoesNotSupportFeature": "unsupported",
    "generic.domainMismatch": "engine_error",
    "generic.presetNotFound": "engine_error",
    "exceed_context_size_error": "context_too_large",
    "context_length_exceeded": "context_too_large",
    "model_not_found": "model_not_found",
    "unavailable_error": "timeout",
}
"""Structured codes of LM Studio, llama.cpp's server and OpenAI's API; also found inside texts."""

COMPANION = (
    r"(?:fail\w*|error|unable|could ?n[o']t|cannot) (?:to )?(?:load|loading|open|init\w*) "
    r"(?:the )?(?:\w+ )?(?:(?:draft|speculative|mtp|projector|vision|lora|adapter|clip"
    r"|control vector)(?![-\w])|mmproj)"
    r"|\bclip_\w+: (?:\w+: )?failed to load|\bfind tensor '?(?:v|mm|a)\."
    r"|\bmmproj\b.{0,80}(?:fail|unable|invalid|not found|missing|does)"
    # Not as a part of the name of a model.
    r"|(?<![-\w/.@])(?:draft|speculative|mtp|lora|adapter|projector)(?![-\w/]).{0,80}"
    r"(?:not (?:be )?(?:found|compatible)|incompatible|missing|mismatch|corrupt|damaged"
    r"|does(?: not|n't) exist)|\bmismatch between the draft\b"
)
"""A companion file of a model, which itself is neither missing nor corrupted."""

RULES: tuple[tuple[str, str], ...] = (
    (
        "guardrail_refused",
        r"insufficient system resources(?! exist)|memory estimate unavailable"
        r"|loading guard ?rails|guard ?rails? (?:prevent|block|refus|reject)"
        r"|(?:prevent|block|refus|reject|stopp|exceed|violat)\w*\b.{0,60}\bguard ?rails?\b"
        r"|requires approximately .{0,60}memory|likely overload your system"
        r"|not enough (?:system )?resources|not have enough memory to load"
        r"|too large for .{0,20}memory",
    ),
    # Memory first: an abort, exit or closed socket may follow from it.
    (
        "out_of_memory",
        r"out[ _-]?of[ _-]?(?:[a-z]+[ _-])?(?:[a-z]{0,9}memory|v?ram\b)|\boom\b|oom[ _-]?kill"
        r"|out_of_resources|resource_?exhausted"
        r"|insufficient[ _-]?(?:[a-z]+[ _-]){0,2}(?:memory|v?ram)"
        r"|(?:than|for|no) (?:the )?available (?:\w+ ){0,2}(?:memory|v?ram)\b"
        r"|requires more (?:\w+ )?memory"
        r"|not have enough (?:\w+ ){0,3}(?:memory|v?ram)\b"
        r"|too large for (?:\w+ )?(?:system|machine|gpu|device)\b"
        r"|increas\w* .?gpu_memory_utili[sz]ation|error_?memory_?allocation|out of swap"
        r"|not_?enough_?memory|not fit (?:in|into) (?:the )?(?:\w+ )?(?:memory|v?ram)\b"
        r"|memory (?:watchdog|killer)"
        r"|insufficient system resources exist|not enough (?:\w+ ){0,3}(?:memory|v?ram)\b"
        r"|not enough space in (?:the )?(?:\w+ )?(?:context|buffer|memory)"
        r"|(?:memory|v?ram) (?:is )?(?:exhausted|insufficient|not (?:enough|sufficient))"
        r"|\b(?:memoryerror|enomem)\b|bad[ _]?alloc|cannot allocate memory"
        r"|paging file is too small|0xc0000017\b|0xc000012d\b|\b3221225495\b|\b3221225773\b"
        rf"|{localized.NO_MEMORY}",
    ),
    (
        "out_of_memory",
        r"(?:failed|failure|unable|could ?n[o']t|cannot|can't|error) (?:to )?(?:be )?(?:re)?"
        r"(?:alloc|reserv)(?!\w* (?:port|address))"
        r"|alloc\w*(?:[ _:(].{0,80})?(?:[ _]fail|could not be)|attempt\w* to allocate"
        r"|max\w* (?:allowed )?buffer|invalid buffer size\W+\d|buffer (?:max|is n(?:il|ull))"
        r"|(?:exceed\w*|(?:larg|great|bigg)er than) .{0,40}\bmax_?(?:memory_?|buffer_?)+\w"
        r"|ggml_assert\(buf(?:fer)?(?: != \w+)?\)"
        r"|mem_buffer != null|resource limit \(\d+\) exceeded"
        r"|exceeds? .{0,30}\b(?:memory|v?ram|buffer size)\b|memory pressure|jetsam"
        r"|memory (?:limit )?exceeded|memory limit reached"
        r"|(?:ret|returned|status)\W{1,3}-2\b",
    ),
    ("host_trouble", HOST_TROUBLE),
    # A runtime for GGUF belongs to every engine: without it, no model is unsupported.
    (
        "engine_error",
        r"no lm runtime found for model format \W?gguf"
        # An existing file that cannot be read on this machine now.
        r"|\b(?:permission denied|stale (?:nfs )?file handle"
        r"|input/output error|transport endpoint is not connected)\b"
        # A file that is not part of a model.
        r"|\b(?:config|settings|preset|grammar) file (?:\w+ )?(?:not found|does(?: not|n't) exist)"
        r"|no such file.{0,200}[/\\]\.internal[/\\]"
        # A path that lost its letters on its way.
        r"|failed to (?:load|open)\b.{0,200}(?:\ufffd|[/\\]\?{2,}[/\\])",
    ),
    # An invalid request is not a verdict on the model.
    (
        "engine_error",
        r"\b(?:content|media|message|output|tool)[ _-]types?\b"
        r"|parameter '\w+'|number of arguments|<(?:h1|title)>\W*404"
        r"|message\W{1,4}file not found",
    ),
    ("engine_error", COMPANION),
    ("unreachable", LOST),
    (
        "context_too_large",
        r"exceed.{0,80}\b(?:context(?! deadline)|n_ctx|ctx|max_model_len|sequence length)\b"
        r"|\b(?:context(?! deadline)|n_ctx|ctx|prompt|input|tokens)\b[^.\n]{0,60}\bexceed"
        r"|maximum (?:context|sequence|prompt|input|model length)|context[ _]overflow"
        r"|\bmax_\w*tokens\b.{0,40}\bgot -\d"
        r"|overflow.{0,20}\bcontext\b"
        r"|\b(?:prompt|input|context|text|request|message)\b[\w ]{0,20}\btoo "
        r"(?:long|large|many|big)\b|too many (?:\w+ )?tokens|more tokens than|>=? n_ctx\b"
        r"|context the overflows|larger context"
        r"|increas(?:e|ing) (?:the )?(?:kv|context|n_ctx|ctx)\b"
        r"|\bcontext (?:length|size|window)\b.{0,30}"
        r"(?:too small|not enough|is full|reached|of only)|reached (?:the )?(?:\w+ )?context"
        r"|(?:run|ran|out) (?:out )?of context"
        r"|(?:greater|larger|longer|higher|bigger|more) than .{0,60}(?:context|max\w*_"
        r"(?:model_)?len|sequence length|number of tokens|position_embeddings)|\bfind_slot\b"
        r"|truncat\w* (?:the )?(?:input|prompt)|(?:prompt|input)[\w ]{0,20} truncated"
        r"|(?:find|no|nokv|without)\w*[\w ]{0,30}(?:kv|memory|cache)[ _]?(?:cache )?slot"
        r"|available cells in (?:the )?kv|kv[ _-]?cache(?: is)? full|space in (?:the )?(?:kv|cache)"
        r"|k-shift|context shift|prepare (?:\w+ ){1,2}u?batch|check your context"
        r"|\binputs?\b.{0,60}\bmust (?:have less than|be <=?) \d"
        r"|physical batch size|(?:fit|fits) (?:in|into|within) (?:the )?(?:\w+ )?context"
        r"|decode\b.{0,60}\b(?:ret|returned|code)[ =:]{1,3}1\b",
    ),
    (
        "unsupported",
        r"(?:unknown|un-?supported|unrecogni[sz]ed|unhandled|no support for) [\w -]{0,30}"
        r"(?:architecture|model[ _]type|image[ _]processor|tokeni[sz]er"
        r"|(?:model|file|safetensors) format|type"
        r"|configuration class|quanti[sz]ation|projector|gguf|ggml|model|version)\b"
        r"|(?:architecture|model|type|tokeni[sz]er|quanti[sz]ation|format|version|bit"
        r"|op)s?\b.{0,60}(?:(?:is|are|was) ?n[o']t |not (?:yet )?)(?:yet |currently )*"
        r"(?:supported|recogni[sz]ed|implemented)|\bnot recogni[sz]e this architecture"
        r"|(?:n[o']t|not yet) support (?:this yet|[\w -]{0,20}"
        r"(?:architecture|projector|gguf|ggml|model type))"
        r"|loading model architecture|architecture (?:is )?unknown|class \S+ does not exist"
        r"|no longer supported|only supports (?:up to )?version|currently only supports"
        r"|unable to quantize model of type"
        r"|(?:__init__|quantize|from_dict)\(\) (?:missing \d+ required|got an unexpected keyword)"
        r"|\bno [\w ]{0,30}\b(?:runtime|engine|backend|extension)s?\b.{0,30}"
        r"(?:found|installed|loaded|available|support)|not compiled with"
        r"|requires .{0,40}(?:\bversion|or (?:newer|later))\b|please (?:update|upgrade)"
        r"|no module named \W?\w+\.|trust_remote_code|engine does not support|no kernel image"
        r"|kernel image is invalid|invalid device function|for gpu arch"
        r"|invalid ggml type|keyerror: ['\"](?:model_type|architectures?|[a-z_]+\d\w*)['\"]"
        r"|must be loaded with the first split|\brope_scaling\b.{0,40}(?:must be|should)"
        r"|\bonly supported on (?:\w+ )?(?:gpus?|devices?|hardware)\b|\bsupport is (?:not|still)\b"
        r"|failed to process regex|any variant of untagged enum"
        r"|requires the .{0,60}(?:provider|runtime|backend|extension)\b|\bno device code\b",
    ),
    (
        "corrupted",
        r"(?:invalid|bad|wrong|unknown|unexpected|incorrect).{0,12}\bmagic\b"
        r"|\bfile (?:is )?(?:too (?:short|small)|empty)\b|\bdecode.{0,80}\bconfig\.json\b"
        r"|\bexpected \d+ shards\b|\bunexpected end of json.{0,40}\b\w+\.json\b"
        r"|\.json is (?:not valid|invalid)\b"
        r"|\bmagic\b.{0,40}(?:invalid|bad|wrong|mismatch|unknown|not match)"
        r"|not a (?:valid )?(?:gguf|ggml|safetensors|model(?! id))"
        r"|(?:invalid|bad) (?:gguf|ggml|safetensors)"
        r"|(?:wrong|unexpected|incorrect|invalid) (?:number|shape|size|type) (?:of|for) "
        r"|(?:missing|duplicate\w*) (?:\d+ )?(?:tensor|parameter|weight)"
        r"|missing \S+\.(?:weight|bias)|parameters not in model"
        r"|pars(?:e|ing) .{0,40}(?:tokenizer|header|config\.json|gguf)"
        r"|tensor\b.{0,120}(?:not found|missing|has (?:wrong|offset)|mismatch|out of bounds"
        r"|invalid|exceeds|not a multiple|(?:is )?duplicated|size overflow)|(?:file|data) bounds"
        r"|(?:shape|size|dimension|count)s?[ _](?:mismatch|does not match)"
        r"|(?:model|file|gguf|weights?|download\w*|header|blob|cache|tensor|shard"
        r"|checkpoint)\b.{0,60}(?:corrupt|incomplete|truncated|damaged)"
        r"|(?:corrupt(?:ed)?|incomplete|truncated|damaged|broken) (?:or \w+ )?"
        r"(?:model|file|gguf|weights?|download|header|blob|cache|tensor|metadata)"
        r"|(?:unexpected\w*|premature\w*) (?:reached )?"
        r"(?:end[ -]of(?! (?:json|input|response|stream))|eof.{0,40}(?:file|read(?!ing response)))"
        r"|remaining file size|fread returned|too many tensors|endianness"
        r"|failed to seek |failed to read (?:entire file|tensor|magic|header|key|model|gguf|meta)"
        r"|read error(?!.{0,20}\bconnection)"
        r"|(?:checksum|sha(?:-?\d+)?|digest|hash)\b.{0,80}(?:mismatch|fail|n[o']t match)"
        r"|(?:mismatch\w*|invalid|bad|wrong) (?:checksum|sha-?\d+|digest|hash)"
        r"|safetensor_?error|deserializing header|header_?too_?(?:large|small)"
        r"|invalid[ _]?header(?! (?:name|value))|invalid format for"
        r"|incomplete_?metadata|metadata_?incomplete|zip archive|unpickling|invalid load key"
        r"|key not found in model|\bkey \S+ has wrong type|\bin (?:the )?model file\b"
        r"|(?:split|shard)s?\b.{0,40}(?:idx|invalid|missing|illegal)"
        r"|(?:missing|illegal|invalid) (?:split|shard)|llama_memory is null|reuse from cache"
        r"|mismatched (?:parameter|tensor|weight|shape)|failed to load gguf split"
        r"|find tensor|received shape|re-?download|does not appear to have a file"
        r"|loading model (?:hyperparameters|vocabulary)|gguf_\w+: failed(?! to open)"
        r"|loading model: (?:bad|invalid|vector|basic_string|.{0,20}\bexpected value)",
    ),
    (
        "model_not_found",
        # Not where it only says what failed.
        r"\bmodel\b(?!(?<=load model)[.:])(?!(?<=load the model)[.:]).{0,120}"
        r"(?:not (?:be )?found|(?:does|did) ?(?:not|n't) exist|is unknown|"
        r"(?:not|n't) (?:be )?(?:available|downloaded|installed|located)\b"
        r"|n[o']t (?:been )?loaded\b)"
        r"|load (?:the )?model: \S{1,80} (?:was |is |could )?not (?:be )?found"
        r"|no (?:\w+ )?(?:models?|config file) (?:\w+ ){0,2}"
        r"(?:found|loaded|match\w*|available|with)\b|no_model|nomodelmatchingquery"
        r"|pathnotfound|path not found|modelnotfound"
        r"|(?:cannot|could ?n[o']t|can't|unable to|failed to) (?:find|locate|resolve).{0,40}\b"
        r"(?:model|weights|gguf|file|repo\w*)\b|(?:invalid|unknown) model\b"
        r"|(?:file|gguf|weights|repo\w*|manifest|entry)\b.{0,80}(?:not (?:be )?found|does"
        r"(?: not|n't) exist)|no such (?:file|model)\b|cannot find the (?:file|path)|\benoent\b"
        r"|filenotfound|manifest unknown|does this file exist"
        r"|failed to open (?:gguf|model|.{0,200}\.(?:gguf|bin|safetensors)\b)"
        rf"|{localized.NO_SUCH_FILE}"
        r"|(?:repository|revision|entry)_?not_?found|not a valid model identifier"
        r"|(?:status(?: code)?|http|error|code|manifest|failed)\W{0,4}(?:\d\.\d )?404\b"
        r"|404 (?:not found|client error)|available models:|no safetensors",
    ),
    # Before `unreachable`: a connection that timed out existed.
    (
        "timeout",
        r"tim(?:ed|es|ing)[ _-]?out"
        r"|(?<!-)(?<!gpu )(?<!error)time-?out(?!\w*['\"]?\s*[=:]\s*['\"]?(?:\d|none|null))"
        r"(?!s?=)|deadline[ _]?(?:has )?(?:been )?(?:was )?exceeded|context cancell?ed"
        r"|aborterror|(?:operation|request) was aborted|client disconnected\. stopping"
        r"|client closing the connection|still loading|server status: .{0,20}loading"
        r"|['\"]loading model['\"]|server busy|\b(?:408|504)\b (?:request|gateway)"
        r"|\b(?:http|status(?: code)?|response|error|code)\W{0,4}(?:408|504)\b"
        r"|no (?:response|progress|output) (?:for|within|after|in)\b|did(?: not|n't) respond"
        r"|(?:in|within) the (?:expected|allotted|allowed) time"
        r"|health[ _-]?check failed after"
        r"|\bhealth\b.{0,60}\b503\b",
    ),
    # The GGUF reader itself; other "failed to load model" lines only repeat that it failed.
    ("corrupted", r"llama_model_loader: failed to load"),
    # A process that reports why it ended.
    ("out_of_memory", r"(?:running|terminated)\b.{0,40}failed to create (?:\w+ )?context"),
    (
        "crashed",
        r"\bsig(?:segv|abrt|kill|bus|ill|fpe|trap|sys|term)\b|segmentation (?:fault|violation)"
        r"|segfault|bus error|illegal instruction|floating[ -]point exception|stack overflow"
        r"|access violation|protect(?:ion fault|ed memory)|core dumped|abort trap|trace/bpt"
        r"|(?:^|: )abort(?:ed|\(\))?(?:$| \(| {2})|abort(?:\(\))? (?:has been|was) called"
        r"|terminate called|terminating (?:due to|with) uncaught|libc\+\+abi|ggml_(?:assert|abort)"
        r"|assert\w*\b.{0,200}\bfail|\bfailed assertion\b|\bcrash(?:ed|es|ing)?\b"
        r"|(?:process|runner|server|engine|worker|backend|subprocess|instance|model|child)\b"
        r".{0,60}\b(?:terminated|died|exited|killed|stopped unexpectedly|unexpectedly stopped"
        r"|unloaded|is gone|no longer running)\b"
        r"|(?:while running the model|post predict|do \w+ request"
        r"|reading (?:from server|llm response))\b"
        r".{0,160}\b(?:eof|forcibly closed|connection reset)\b"
        r"|engine protocol [\w ]{0,20}request failed"
        r"|(?<!failed with )exit(?:ed|s)?[ _]?(?:with )?(?:code|status)\W{0,4}"
        r"(?:null|none|undefined|0x|-?(?!0\b)\d)"
        r"|exited (?:with|unexpectedly|abnormally|prematurely|before)"
        r"|signal\W{1,3}(?:killed|aborted|\d|arrived)|\bkilled\b|0xc0000\w{3}\b"
        r"|device[ _]?(?:was |is |has been )?(?:lost|removed|hung)|device (?:hang|reset)"
        r"|\b(?:cuda|hip|rocm|sycl) ?(?:\w+ )?error|illegal memory|memory access fault"
        r"|gpu (?:hang|fault|error|reset|timeout)"
        r"|windows (?:fatal exception|error)\b.{0,10}0x[89a-f][0-9a-f]{7}\b"
        r"|\bnative api (?:fail|return)"
        r"|commandbuffer\w*error|double free|(?:free|malloc|munmap_chunk)\(\): "
        r"|pointer being freed|heap corruption|stack smashing|corrupted size|pure virtual"
        r"|panicked at|\bpanic:"
        r"|fatal (?:python )?error:|unexpected signal|unhandled exception|uncaught exception"
        r"|\beof \(status|dead_?error\b|\b(?:engine|worker|server|process) is dead"
        r"|background loop has (?:errored|stop)"
        r"|terminating (?:the )?(?:server|worker|engine)\b"
        r"|brokenprocesspool|process pool.{0,40}terminated",
    ),
    # A server that refuses a request is there.
    ("engine_error", r"\b4(?:00|22) (?:bad request|unprocessable)"),
    ("unreachable", UNREACHABLE),
)
"""Verdict and pattern; the first match decides, so causes come first."""

HINTS: tuple[tuple[str, str], ...] = (
    # A setting that contradicts another also ends in "failed to create context".
    ("engine_error", r"requires? (?:flash|--?\w|\w+ to be )|incompatible with"),
    # Nothing but memory makes these fail for a model that was read well.
    (
        "out_of_memory",
        r"failed to (?:create|initiali[sz]e|init) (?:the )?(?:\w+ )?(?:context|llama_context)"
        r"|kv_?[ -]?cache\w*(?:\(\))? (?:init\w* )?fail|fail\w* .{0,30}kv[ _-]?cache"
        r"|\bcompute error|graph_compute\w* failed|failed to compute graph"
        # The system's own words follow, in its language.
        r"|\b(?:mapviewoffile|createfilemapping\w?|virtualalloc\w*) (?:has )?failed"
        r"|command buffer \d+ failed|\bret(?:urned)?\W{1,3}-3\b",
    ),
)
"""Used if neither `RULES` nor the exit status match."""

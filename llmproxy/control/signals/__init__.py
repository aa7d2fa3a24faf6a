"""What the engines and their GPUs say of themselves, read beside the traffic and never on the path of a request.

* A *source* reads one thing of one backend (`source.py` has the interface, `registry.py` the names). `engine.py` reads
  the metrics page that vLLM, SGLang, llama.cpp and TensorRT-LLM serve, whose names are in `engine_table.py`; `nvml.py`
  a GPU of this host through NVIDIA's library, `agent.py` one of another host through `llmproxy gpu-agent`, and
  `dcgm.py` one through a DCGM exporter. Sources know nothing of each other.
* The *scraper* (`scraper.py`) is the one writer of `Backend.gauges`: it asks each backend's sources on that backend's
  own jittered schedule, each within a timeout that is shorter than the interval, and replaces the gauges whole.
* `gpu_agent.py` is the other end of `agent.py`: the small server on a host with GPUs.

Unknown is None, and old is unknown. A read that fails changes nothing: what was read before it keeps its time, and
`Gauges.is_fresh` says when that is too long ago. Only facts about the server that are no measurements (the size of its
KV cache, the names of its models) outlive their read. Nothing here stops traffic: a source that fails is reported once
and counted, and asked again, one that has nothing to say ever less often.

Cost: a vLLM page of 75 KB is parsed as it arrives, in steps of 16 KB, each well under a millisecond. NVML's calls,
which may block for as long as the driver likes, happen on a thread of their own.
"""

"""The names of what vLLM and verl run and leave behind: processes, shared memory, sockets.

They are not in the contract, since no signature holds them; the end-to-end tests find what stays
behind under another name.
"""

import re
from pathlib import Path

# Title of a vLLM engine's process, from its start.
ENGINE_TITLE = "VLLM::Engine"
# Sockets: verl's, over which it sends weights to an engine (one a replica), in a folder that no
# setting changes (vllm_rollout.py:141), and vLLM's, between its processes, in the temporary folder.
SOCKET_FOLDER = Path("/tmp")
SOCKET_NAME = re.compile(
    r"rl-colocate-zmq-.*\.sock|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
# Files in /dev/shm: of Python's SharedMemory, of verl's and our weight buckets
# (weight_sync/shared_segment.py), of semaphores.
SEGMENT_NAME = re.compile(r"(?:psm_|verl_weights_|sem\.mp-)\w+")

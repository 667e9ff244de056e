"""Multi-turn trajectories of a model that has never learned to call a tool: some letters are calls.

Imported by the runs' Ray workers. Each turn that a server is asked for is one line (JSON) of
``$MULTI_TURN_TURNS``: the trajectory's request, the tokens so far, and how many more are granted.
"""

import json
import os

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser

from verl_pipeline.testing.seeded_rollout import SeededAgentLoopManager, SeededAgentLoopWorker

TURNS = "MULTI_TURN_TURNS"
CALLS = "aeiou"
# Name of the parser, for `multi_turn.format`.
FORMAT = "letters"


@ToolParser.register(FORMAT)
class LetterCalls(ToolParser):
    """A turn ends at a vowel, which is a call of the tool ``look_up``."""

    @property
    def stop_token_ids(self):
        return self.tokenizer.convert_tokens_to_ids(list(CALLS))

    async def extract_tool_calls(self, responses_ids, tools=None):
        text = self.tokenizer.decode(responses_ids, skip_special_tokens=True)
        if not text or text[-1] not in CALLS:
            return text, []
        arguments = json.dumps({"letter": text[-1]})
        return text, [FunctionCall(name="look_up", arguments=arguments)]


class RecordingWorker(SeededAgentLoopWorker):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        ask_for_server = self.llm_client._acquire_server

        async def record_turn(request_id, *, prompt_ids, sampling_params, **kwargs):
            turn = (request_id, len(prompt_ids), sampling_params.get("max_tokens"))
            with open(os.environ[TURNS], "a") as file:
                file.write(json.dumps(turn) + "\n")
            return await ask_for_server(
                request_id, prompt_ids=prompt_ids, sampling_params=sampling_params, **kwargs
            )

        self.llm_client._acquire_server = record_turn


class RecordingManager(SeededAgentLoopManager):
    worker_class = RecordingWorker

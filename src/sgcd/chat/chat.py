"""Encode a conversation and parse turns with a tokenizer and its template; ids are only appended."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.chat.call_formats import HERMES_FORMAT, LAB_FORMAT, CallFormat, Tools, detect_call_format
from sgcd.chat.reference_place import ReferencePlaces, RenderedPrompt
from sgcd.chat.template import (
    MARKER_TEXT,
    MARKER_USER,
    PROBE_TURN,
    PROBE_USER,
    MarkEscaper,
    build_preserving_template,
    build_renderer,
    collect_marks,
    render_after_turn,
    stock_template,
)
from sgcd.chat.turn_parser import SpanDecoder, TokenSpans, decode_ids, kinds_of_tokens, parse_turn_text
from sgcd.chat.turn_writer import TurnWriter
from sgcd.errors import TemplateError
from sgcd.records import Message, ParsedTurn, Rollout, TokenIds, TokenKinds, Turn
from sgcd.text import get_first_line

_PAD_CANDIDATES = (
    "<|finetune_right_pad_id|>",
    "<|endoftext|>",
    "<pad>",
    "<|pad|>",
    "[PAD]",
)  # where a tokenizer names none


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """The ids of a prompt, up to the policy's first token, and the place of a reference in them."""

    token_ids: TokenIds
    reference_position: int
    messages: tuple[Message, ...]
    """The rendered messages: marks in the words of users and tools are broken."""


class Chat:
    """A tokenizer with its template. Sampled ids are never encoded again; replies are encoded by the template.

    `tool_instruction` is the text that lists the tools where the template cannot.
    """

    def __init__(self, tokenizer: Any, name: str = "the tokenizer", *, tool_instruction: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.name = name
        stock = stock_template(tokenizer, name)
        self.template = tokenizer.chat_template = build_preserving_template(tokenizer, stock, name, tool_instruction)
        self._render_text = build_renderer(tokenizer, self.template, name)
        self.vocab_size = len(tokenizer)
        marks = collect_marks(tokenizer, self.template)
        self.end_id = self._find_end(marks)
        self.call_format = self._find_call_format()
        self.pad_id = self._find_pad()
        self._escape = MarkEscaper(marks | set(self.call_format.marks))
        vocabulary = tokenizer.get_vocab()
        self.end_ids = (
            self.end_id,
            *(int(vocabulary[mark]) for mark in self.call_format.end_tokens if mark in vocabulary),
        )
        """The ids with which the policy may end its turn, the template's own first."""
        self._reference_places = ReferencePlaces(
            tokenizer,
            self._render_text,
            self.end_id,
            self.call_format.marks,
            name=name,
        )
        self._span_decoder = SpanDecoder(tokenizer, self.end_id)
        turn_prefix = self._render_after_turn([MARKER_USER], add_generation_prompt=True).partition(MARKER_TEXT)[2]
        self._turn_prefix_ids = self._encode(turn_prefix)
        self._turn_prefix = turn_prefix
        self._opens_thinking = turn_prefix.rfind(self.call_format.thinking_marks[0]) > turn_prefix.rfind(
            self.call_format.thinking_marks[1]
        )
        self._end = self.decode(np.array([self.end_id], np.int32))
        self._turn_writer = TurnWriter(self._render_text, self.call_format, self._end, self._opens_thinking)

    @classmethod
    def load(cls, folder: Path, tool_instruction: str | None = None) -> "Chat":
        """Load the tokenizer and the template of a policy's folder; nothing is downloaded."""
        from transformers import AutoTokenizer

        try:
            auto_tokenizer: Any = AutoTokenizer  # its methods have no types
            tokenizer = auto_tokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as problem:
            raise TemplateError(
                f"{folder}: no tokenizer can be read there ({get_first_line(problem)}); "
                "expected tokenizer.json beside the weights"
            ) from problem
        return cls(tokenizer, str(folder), tool_instruction=tool_instruction)

    @property
    def template_hash(self) -> str:
        """Runs with the same one render conversations alike."""
        return sha256(self.template.encode()).hexdigest()[:12]

    def save(self, folder: Path) -> None:
        """Write tokenizer and template; with them apply_chat_template gives the text of a rollout."""
        if not getattr(self.tokenizer, "response_template", None):
            self.tokenizer.response_template = self._turn_writer.response_template(self._turn_prefix)
        self.tokenizer.save_pretrained(folder)

    # -- the conversation ---------------------------------------------------------------------------------------------

    def encode_prompt(self, messages: Sequence[Message], tools: Tools) -> EncodedPrompt:
        """Encode the prompt, all that comes before the policy's first token, and find the place of a reference."""
        given = tuple(self._prepare_given(message) for message in messages)
        text = self._render_text(given, tools, True)
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(encoding["input_ids"], np.int32)
        starts = np.asarray([start for start, _ in encoding["offset_mapping"]], np.int64)
        position = self._reference_places.find_place(RenderedPrompt(given, tools, text, ids, starts))
        return EncodedPrompt(ids, position, given)

    def encode_reply(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> tuple[TokenIds, tuple[Message, ...]]:
        """Encode what follows a turn that the policy ended: the messages and the opening of its next turn."""
        escaped = tuple(self._escape_message(message) for message in messages)
        glue = self._encode(self._render_after_turn(escaped, add_generation_prompt))
        if not len(glue) or glue[0] != self.end_id:
            roles = [message["role"] for message in messages]
            raise TemplateError(f"{self.name}: a turn that {roles} follow does not end with the end-of-turn token")
        return glue[1:], escaped

    def parse_turn(self, ids: TokenIds, tools: Tools = ()) -> tuple[ParsedTurn, TokenKinds]:
        """Parse one sampled turn, and give each of its tokens a kind; nothing is encoded again.

        The schemas in `tools` give types to the arguments of call formats that write every value as text.
        """
        stop = len(ids) - 1 if self.has_end_token(ids) else len(ids)
        text, spans = self.decode_with_spans(ids[:stop])
        parser = parse_turn_text(text, self.call_format, tools, opens_thinking=self._opens_thinking)
        token_kinds = kinds_of_tokens(parser.character_kinds, spans)
        if stop < len(ids):  # the end belongs to the stretch that it closes
            token_kinds = np.append(
                token_kinds, token_kinds[-1] if stop else kinds_of_tokens(token_kinds, np.zeros((1, 2), np.int64))[0]
            )
        return parser.parsed_turn, token_kinds.astype(np.uint8)

    def write_turn(self, turn: ParsedTurn) -> str:
        """A turn in parts as the text that a policy would have sampled, without its end."""
        return self._turn_writer.write(turn)

    def encode_turn(self, text: str) -> TokenIds:
        """Encode a turn's text in its place, marks included, with the token that ends the turn."""
        ids, num_before = self._encode(self._turn_prefix + text + self._end), len(self._turn_prefix_ids)
        is_apart = np.array_equal(ids[:num_before], self._turn_prefix_ids)
        return ids[num_before:] if is_apart else self._encode(text + self._end)

    def visible_text(self, rollout: Rollout, turn: Turn) -> str:
        """What a turn says outside thinking and calls. A rollout that does not record it is parsed again."""
        if turn.text is not None:
            return turn.text
        return self.parse_turn(rollout.response[turn.start : turn.stop], rollout.tools)[0].text

    def has_end_token(self, ids: TokenIds) -> bool:
        """Whether the policy ended this turn itself."""
        return len(ids) > 0 and int(ids[-1]) in self.end_ids

    def turn_message(self, ids: TokenIds, hit_end_token: bool) -> Message:
        """A sampled turn as a message with its raw text, which renders to the same text again."""
        if not hit_end_token:
            return {"role": "assistant", "content": self.turn_text(ids), "unfinished": True}
        end_field = {} if ids[-1] == self.end_id else {"end": self.decode(ids[-1:])}
        return {"role": "assistant", "content": self.turn_text(ids[:-1]), **end_field}

    def turn_text(self, ids: TokenIds) -> str:
        """The text of sampled ids. The lab's template writes the first space itself."""
        return self.decode(ids) if self.call_format is LAB_FORMAT else self._span_decoder.decode_after(ids.tolist())

    def roundtrips(self, ids: TokenIds) -> bool:
        """Whether the tokenizer encodes the turn's text, in its place, to these very ids."""
        end = self.decode(ids[-1:]) if self.has_end_token(ids) else ""
        text = self.turn_text(ids[:-1] if end else ids)
        encoded = self._encode(self._turn_prefix + text + end)
        return np.array_equal(encoded, np.concatenate([self._turn_prefix_ids, ids]))

    def decode(self, ids: TokenIds) -> str:
        return decode_ids(self.tokenizer, ids)

    def decode_with_spans(self, ids: TokenIds) -> tuple[str, TokenSpans]:
        """The text of `ids`, and for each id the span [start, stop) of the characters it is part of."""
        return self._span_decoder.decode_with_spans(ids)

    def encode_conversation(self, messages: Sequence[Message], tools: Tools) -> TokenIds:
        """Encode a whole conversation with the template, as any user of the exported policy would."""
        return self._encode(self._render_text(messages, tools, False))

    def encode_text(self, text: str) -> TokenIds:
        """Encode a text of the harness alone: special tokens in it are escaped."""
        return self._encode(self._escape(text))

    def encode_policy_text(self, text: str) -> TokenIds:
        """Encode a text as a policy would have sampled it, special tokens included; for scripted policies."""
        return self._encode(text)

    # -- taking the template apart ------------------------------------------------------------------------------------

    def _encode(self, text: str) -> TokenIds:
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def _escape_message(self, message: Message) -> Message:
        return {**message, "content": self._escape(message["content"])}

    def _prepare_given(self, message: Message) -> Message:
        """A message of the prompt. System messages and assistant turns are the operator's own words: marks stay whole.

        Such a turn is marked `given`: the stock template renders it.
        """
        match message["role"]:
            case "assistant":
                return {**message, "given": True}
            case "system":
                return message
            case _:
                return self._escape_message(message)

    def _render_after_turn(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """The text after an assistant turn that `messages` follow, from its end-of-turn token on."""
        return render_after_turn(
            self._render_text,
            [PROBE_USER, PROBE_TURN],
            messages,
            add_generation_prompt=add_generation_prompt,
            name=self.name,
        )

    def _find_end(self, marks: set[str]) -> int:
        closing = self._render_after_turn((), add_generation_prompt=False)
        ids = self._encode(closing)
        if not len(ids) or self.decode(ids[:1]) not in marks:
            raise TemplateError(
                f"{self.name}: the template closes an assistant turn with {closing!r}; expected a special token"
            )
        suffix_ids = self._encode(self._render_after_turn((PROBE_USER,), add_generation_prompt=True))
        if not len(suffix_ids) or suffix_ids[0] != ids[0]:
            raise TemplateError(
                f"{self.name}: an assistant turn ends differently when messages follow it; its suffix cannot be derived"
            )
        return int(ids[0])

    def _find_pad(self) -> int:
        if self.tokenizer.pad_token_id is not None:
            return int(self.tokenizer.pad_token_id)
        vocabulary = self.tokenizer.get_vocab()
        for pad in _PAD_CANDIDATES:
            if pad in vocabulary and vocabulary[pad] != self.end_id:
                return int(vocabulary[pad])
        raise TemplateError(
            f"{self.name}: the tokenizer names no pad token; set pad_token in tokenizer_config.json (its end-of-turn "
            f"token {self.decode(np.array([self.end_id], np.int32))} will do, padding is never read)"
        )

    def _find_call_format(self) -> CallFormat:
        vocabulary = self.tokenizer.get_vocab()
        if all(mark in vocabulary for mark in LAB_FORMAT.marks):
            return LAB_FORMAT
        tool, argument = "probe_tool", "probe_key"
        rendered_call = self._render_call(tool, {argument: "v"}) or self._render_call(tool, f'{{"{argument}": "v"}}')
        call_format = detect_call_format(rendered_call, tool, argument) if rendered_call else HERMES_FORMAT
        if call_format is None:
            raise TemplateError(
                f"{self.name}: the template writes a call as {rendered_call.partition('u')[2][-120:]!r}; known are "
                '<tool_call>{"name": ...}</tool_call>, <tool_call><function=...>, and {"name": ..., "parameters": ...}'
            )
        marks_text = "".join(call_format.marks)
        if self.decode(self._encode(marks_text)).replace(" ", "") != marks_text:
            raise TemplateError(
                f"{self.name}: its vocabulary has no marks for calls that are known here; expected "
                f"{' '.join(LAB_FORMAT.marks)}, or a vocabulary that can spell {' '.join(call_format.marks)}"
            )
        return call_format

    def _render_call(self, tool: str, arguments: Any) -> str:
        """A call as the template renders it; empty where it renders none, or refuses these arguments."""
        call = {"id": "probecall", "type": "function", "function": {"name": tool, "arguments": arguments}}
        try:
            text = self._render_text(
                [PROBE_USER, {"role": "assistant", "content": "", "tool_calls": [call]}], (), False
            )
        except TemplateError:
            return ""
        return text if tool in text else ""

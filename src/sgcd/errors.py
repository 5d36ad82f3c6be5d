"""One class of error for each border of the program: recipe, folder, policy, environment, endpoint and so on.

Every message is one line that says what is wrong, where, what was expected and what to do. The command line prints
that line and exits with code 2, or 1 where the work was done without a result; nothing else in the house catches these.
"""


class SgcdError(Exception):
    """Something the person who started the command can put right."""


class RecipeError(SgcdError):
    """The recipe: a key that does not exist, a value out of range, a file that cannot be read."""


class StudyError(SgcdError):
    """A study's file: a key or an arm that does not fit, or a change after its first fresh seed."""


class FolderError(SgcdError):
    """A run's folder: missing, occupied, torn, or written under another recipe."""


class DamageError(FolderError):
    """A file of a run's folder that is missing, or is not as the run wrote it; `problem` says which and how."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; restore it from a copy, `sgcd check RUN` lists all that is damaged")
        self.problem = problem


class PolicyError(SgcdError):
    """A policy's folder: weights, tokenizer or their agreement."""


class TemplateError(SgcdError):
    """A chat template: absent, or one whose suffix for the next turn cannot be derived."""


class EnvironmentFault(SgcdError):
    """An environment class or its tasks: no tools, no verifier, a row that does not fit."""


class DataError(SgcdError):
    """Conversations to learn from: a file that cannot be read, a line that is none, or not one that can be learned."""


class MethodFault(SgcdError):
    """A credit rule of one's own: no signal(), or a signal that does not fit its rollout."""


class EmptyResult(SgcdError):
    """A command that came to its end without a result: nothing was learned or measured. The exit code is 1."""


class EngineError(SgcdError):
    """Another engine than the local one: not installed, of another version, or a process of it that failed."""


class RecordError(SgcdError):
    """A record whose arrays do not fit together; names the record, what was expected and what came."""


class EndpointError(SgcdError):
    """A model behind an endpoint: no key in the environment, a cache that cannot be used."""

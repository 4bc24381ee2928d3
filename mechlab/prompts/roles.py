"""Token roles: what a position is to the subject of a fact (Meng et al. 2022, section 2).

The published averages use six roles. `before_subject` is added so that every position has one. The
subject is declared in characters; the model resolves it to tokens from the offsets of the whole
prompt, and this file turns the token span into roles.
"""

from mechlab.axes import TOKEN_ROLES
from mechlab.errors import PromptError

__all__ = ["TOKEN_ROLES", "role_of_positions"]


def role_of_positions(n_tokens: int, first: int, last: int) -> list[str]:
    """Return the one role of each position of an unpadded prompt.

    A subject of one token is `"only_subject"`: averages count it as first and as last subject
    token. The prompt's last token is `"last_token"`, unless it belongs to the subject. When it
    follows the subject directly, averages count it as first subsequent token as well.

    Args:
        n_tokens: number of tokens, including a beginning-of-sequence token if there is one.
        first: position of the subject's first token.
        last: position of the subject's last token, included.

    Raises:
        PromptError: when the span does not lie within the prompt.
    """
    if not 0 <= first <= last < n_tokens:
        raise PromptError(
            f"subject positions {first} to {last} do not lie in a prompt of {n_tokens} tokens. "
            f"Allowed: 0 <= first <= last <= {n_tokens - 1}. Check the subject of this prompt."
        )
    return [_role(position, n_tokens, first, last) for position in range(n_tokens)]


def _role(position: int, n_tokens: int, first: int, last: int) -> str:
    if position < first:
        return "before_subject"
    if position <= last:
        return _subject_role(position, first, last)
    if position == n_tokens - 1:
        return "last_token"
    return "first_subsequent" if position == last + 1 else "further"


def _subject_role(position: int, first: int, last: int) -> str:
    if first == last:
        return "only_subject"
    return {first: "first_subject", last: "last_subject"}.get(position, "middle_subject")

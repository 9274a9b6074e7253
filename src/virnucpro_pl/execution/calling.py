"""Head and calling rules of a run."""

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.results.consensus import PUBLISHED_THRESHOLD, CallingRules


def checked_head(model: VirNucPro, chunk_length: int) -> HeadSource:
    """Return the head of a model, checked for a chunk length in nt.

    Raises:
        UserError: the head was trained on another chunk length, or the fallback head cannot be one.
    """
    head = model.head_source
    assert head is not None, "every model configuration has a head"
    head.check_chunk_length(chunk_length)
    if model.fallback_source:
        model.fallback_source.check_fallback()
        if model.inputs == "protein":
            raise UserError("model.fallback_head needs the DNA encoder, which model.inputs=protein leaves out")
    return head


def rules_of(rules: CallingRules, head: HeadSource) -> CallingRules:
    """Return the rules with the threshold and the shortest length of the head, unless they are set.

    Raises:
        UserError: a rule is out of range, or the head cannot be read.
    """
    rules.check()
    info = head.info()
    threshold = rules.threshold or (info.threshold if info else PUBLISHED_THRESHOLD)
    return rules._replace(threshold=threshold, domain_length=head.domain_length())

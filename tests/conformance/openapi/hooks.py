"""What schemathesis has to be told of Speak."""

import re

import schemathesis
from schemathesis.generation import GenerationMode

CALLBACK = re.compile(r"[A-Za-z_$][\w$]*(\[\d+\])*(\.[A-Za-z_$][\w$]*(\[\d+\])*)*", re.ASCII)


@schemathesis.deserializer("text/javascript")
def script(context, response):
    """A script is a text; its schema says of which form."""
    return response.text


@schemathesis.hook
def filter_case(context, case):
    """A request that is to be refused must not ask for a script, which has always status 200, nor be wrong only by a
    parameter that no call knows."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.NEGATIVE:
        return True
    query = case.query or {}
    callback = query.get("callback")
    if isinstance(callback, str) and len(callback) <= 128 and CALLBACK.fullmatch(callback):
        return False
    known = {parameter.name for parameter in case.operation.query}
    return known.issuperset(query)

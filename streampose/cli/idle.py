"""Options that do nothing without another one: refused, since whoever gives them believes that they do."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import typer

from streampose.errors import UsageError


def refuse_idle(context: typer.Context, without: Mapping[str, Collection[str]]) -> None:
    """Raise UsageError where parameters were given that go with something that was not: `without` has, by what is missing,
    the names of those."""
    faults = []
    for wanted, names in without.items():
        if given := [_option(context, name) for name in names if _is_given(context, name)]:
            faults.append(f"{', '.join(given)}: only with {wanted}")
    if faults:
        raise UsageError("; ".join(faults))


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(context: typer.Context, name: str) -> str:
    parameter = next(each for each in context.command.params if each.name == name)
    said = parameter.secondary_opts if context.params[name] is False else parameter.opts
    return (said or parameter.opts)[0]

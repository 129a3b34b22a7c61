# SPDX-License-Identifier: Apache-2.0
"""What can be known of a template before it is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import nodes

_PULL = "xcom_pull"


def pulls_without_map_indexes(value: Any) -> bool:
    """Whether a template, or one in a list or mapping, uses ``xcom_pull`` other than in a call with ``map_indexes``.

    :param value: A templated argument. What is no template, or is malformed, is left to Airflow.
    """
    if isinstance(value, str):
        return _PULL in value and _pulls(value)
    if isinstance(value, Mapping):
        return any(map(pulls_without_map_indexes, value.values()))
    return isinstance(value, list | tuple | set) and any(map(pulls_without_map_indexes, value))


def _pulls(template: str) -> bool:
    # Here, because a DAG file that needs none of this should not pay for the import.
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        # With the one extension that Airflow switches on.
        tree = Environment(extensions=["jinja2.ext.do"]).parse(template)  # noqa: S701 - nothing is rendered
    except TemplateSyntaxError:
        return False
    good = {
        id(call.node) for call in tree.find_all(nodes.Call) if any(given.key == "map_indexes" for given in call.kwargs)
    }
    references = tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Name))
    return any(_names_pull(reference) and id(reference) not in good for reference in references)


def _names_pull(node: nodes.Expr) -> bool:
    """Whether an expression is ``xcom_pull``, in any of the ways in which Jinja gets an attribute."""
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return node.attr == _PULL
    if isinstance(node, nodes.Name):
        return node.name == _PULL
    named = node.arg if isinstance(node, nodes.Getitem) else None
    if isinstance(node, nodes.Filter) and node.name == "attr" and node.args:
        named = node.args[0]
    return isinstance(named, nodes.Const) and named.value == _PULL

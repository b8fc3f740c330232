"""Entry point of the `mobileclip-dense` script: finds a command in the table, parses its flags, runs it."""

import inspect
import sys
from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from mobileclip_dense.command import load_tyro, run_command
from mobileclip_dense.commands import Command, command_groups
from mobileclip_dense.extras import needing_extra

_PROGRAM = "mobileclip-dense"


def main() -> None:
    """Run the command that the command line names."""
    arguments, commands = sys.argv[1:], _all_commands()
    name = next((name for name in commands if arguments[: len(name.split())] == name.split()), None)
    if name is not None:
        run_command(lambda: run_named(name, arguments[len(name.split()) :]))
        return
    first = arguments[0] if arguments else "--help"
    inner = [known.split()[1] for known in commands if known.split()[0] == first and " " in known]
    if first in ("-h", "--help") or (inner and set(arguments[1:2]) <= {"-h", "--help"}):
        print(_usage(first if inner else ""))
        raise SystemExit(0 if arguments and (not inner or len(arguments) > 1) else 2)
    where, found = (f"{_PROGRAM} {first}", arguments[1]) if inner else ("command", first)
    expected = inner or list(dict.fromkeys(known.split()[0] for known in commands))
    print(f"error: {where}: found {found!r}, expected one of {', '.join(expected)}", file=sys.stderr)
    raise SystemExit(2)


def _all_commands() -> dict[str, Command]:
    return {name: command for group in command_groups().values() for name, command in group.items()}


def _usage(first: str) -> str:
    """The list of all commands, or of those whose first word is `first`."""
    lines = [f"usage: {_PROGRAM} {first or 'COMMAND'} {'COMMAND ' if first else ''}[-h] ..."]
    if not first:
        lines += ["", "Strong dense vision for phones: train, export and run segmentation and depth."]
    for heading, group in command_groups().items():
        listed = {name: command for name, command in group.items() if not first or name.split()[0] == first}
        if listed:
            lines += ["", f"{heading}:"]
        for name, command in listed.items():
            gap = f"\n{' ' * 20}" if len(name) > 17 else " " * (18 - len(name))
            lines.append(f"  {name}{gap}{command.summary}")
    return "\n".join([*lines, "", f"`{_PROGRAM} COMMAND --help` explains the flags of a command."])


def run_named(name: str, arguments: Sequence[str]) -> None:
    """Run a command of the table in this process.

    Raises:
        ValueError, OSError: see the function of the command. MissingExtra: a package that it needs is not installed.
        SystemExit: the flags are wrong, or ask for help.
    """
    command, prog = _all_commands()[name], f"{_PROGRAM} {name}"
    with needing_extra(prog, command.extra or "all"):
        settings = _parse(prog, command, arguments)
        action = resolve_name(command.action)
        leave_processes = _leaving_processes()
        action(settings)
    leave_processes()


def _leaving_processes() -> Callable[[], None]:
    """`leave_processes`, which must be imported before a command joins processes; without torch none are joined."""
    if "torch" not in sys.modules:
        return lambda: None
    from mobileclip_dense.processes import leave_processes

    return leave_processes


def _parse(prog: str, command: Command, arguments: Sequence[str]) -> Any:
    if command.recipes:
        return _parse_recipe(prog, resolve_name(command.recipes), arguments)
    settings = resolve_name(command.settings)
    details = f"{inspect.cleandoc(settings.__doc__)}\n\n{resolve_name(command.details)()}" if command.details else None
    return load_tyro().cli(settings, prog=prog, args=arguments, description=details)


def _parse_recipe(prog: str, recipes: dict[str, Any], arguments: Sequence[str]) -> Any:
    # tyro builds every choice that it is given, so a named recipe is the only one. Otherwise all are listed but the
    # debug twins.
    named = [name for name in arguments[:1] if name in recipes]
    listed = named or [name for name in recipes if not name.endswith("-debug")]
    choices = {name: (inspect.cleandoc(recipes[name].__doc__ or ""), recipes[name]()) for name in listed}
    description = "A recipe sets every flag; flags override it. NAME-debug runs two steps of NAME, as a smoke test."
    return load_tyro().extras.overridable_config_cli(choices, prog=prog, args=arguments, description=description)


if __name__ == "__main__":
    main()

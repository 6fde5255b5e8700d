"""Plugin registries: names that are resolved lazily, validated on load and never overwritten.

There are four kinds of plugin, each with an entry-point group of that name: `mmattn.encoders`,
`mmattn.heads`, `mmattn.adapters`, `mmattn.datasets`. The plugins that ship with mmattn use the same
mechanism. A distribution declares a plugin in its pyproject.toml, with the extra that it needs in brackets:

    [project.entry-points."mmattn.encoders"]
    clip-text = "my_package.clip:ClipText [clip]"

Nothing is imported before the name is used; `missing_requirements()` lists requirements that are not
installed without importing anything.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from types import MappingProxyType
from typing import Any

from packaging.requirements import Requirement

from mmattn.errors import MissingDependency, MmattnError, PluginError, did_you_mean

__all__ = ["PluginEntry", "Registry", "adapters", "datasets", "encoders", "heads", "registries", "tasks"]


@dataclass(frozen=True)
class PluginEntry:
    """One plugin: its name, location and requirements.

    Args:
        kind: "encoders", "heads", "adapters" or "datasets".
        name: public name.
        target: "package.module:attribute", or the object itself if it was registered at run time.
        distribution: distribution that provides it ("mmattn"), or "" if it was registered at run time.
        version: version of that distribution.
        extras: extras of the distribution that it needs.
        install: command that installs what is missing, if no extra covers it.
    """

    kind: str
    name: str
    target: Any
    distribution: str = ""
    version: str = ""
    extras: tuple[str, ...] = ()
    install: str = ""

    @property
    def origin(self) -> str:
        """Distribution and version, or the module that registered the plugin at run time."""
        if self.distribution:
            return f"{self.distribution} {self.version}".strip()
        return f"registered by {getattr(self.target, '__module__', None) or self.target}"

    def missing_requirements(self) -> list[str]:
        """Requirements of the plugin's extras that are not installed in a suitable version."""
        if not self.extras:
            return []
        return [
            str(requirement)
            for line in metadata.requires(self.distribution) or []
            if (requirement := Requirement(line)).marker is not None
            and any(requirement.marker.evaluate({"extra": extra}) for extra in self.extras)
            and not requirement.marker.evaluate({"extra": ""})
            and not _is_installed(requirement)
        ]

    def install_command(self) -> str:
        """Command that installs the plugin's requirements; "" if unknown."""
        if self.install:
            return self.install
        if self.extras:
            return f"pip install '{self.distribution}[{','.join(self.extras)}]'"
        return ""

    def load(self) -> Any:
        """Import the plugin.

        Raises:
            MissingDependency: a requirement is not installed; the message contains the install command.
            PluginError: the attribute does not exist in the module.
        """
        if not isinstance(self.target, str):
            return self.target
        missing = self.missing_requirements()
        if missing:
            raise MissingDependency(
                f"{self.kind} plugin {self.name!r} needs {', '.join(missing)}: {self.install_command()}"
            )
        module, _, attribute = self.target.partition(":")
        try:
            plugin: Any = importlib.import_module(module)
            for part in attribute.split("."):
                plugin = getattr(plugin, part)
        except ModuleNotFoundError as error:
            hint = f": {self.install_command()}" if self.install_command() else ""
            raise MissingDependency(
                f"{self.kind} plugin {self.name!r} ({self.target}) needs the module {error.name!r}{hint}"
            ) from error
        except AttributeError as error:
            raise PluginError(
                f"{self.kind} plugin {self.name!r} of {self.origin}: {self.target!r} is not there ({error})"
            ) from error
        return plugin


class Registry(Mapping[str, PluginEntry]):
    """The plugins of one kind: a read-only mapping from name to `PluginEntry`.

    Args:
        kind: name of the kind; the entry-point group is `mmattn.<kind>`.
        hooks: method name -> arguments that the method of a plugin class must accept, in order; a final "..."
            allows further arguments. Loading a plugin whose methods do not match raises a `PluginError`.

    Example:
        >>> from mmattn.registry import Registry
        >>> shapes = Registry("shapes", hooks={"area": ("scale",)})
        >>> class Square:
        ...     def area(self, scale): return scale * scale
        >>> shapes.register("square", Square)
        >>> shapes.load("square")().area(3)
        9
    """

    def __init__(self, kind: str, hooks: Mapping[str, tuple[str, ...]]):
        self.kind = kind
        self.hooks = dict(hooks)
        self._registered: dict[str, PluginEntry] = {}

    @cached_property
    def _discovered(self) -> Mapping[str, tuple[PluginEntry, ...]]:
        """Entries of the installed distributions; several under one name are a conflict."""
        discovered: dict[str, dict[str, PluginEntry]] = {}
        for point in metadata.entry_points(group=f"mmattn.{self.kind}"):
            distribution = point.dist.name if point.dist else ""
            entry = PluginEntry(
                kind=self.kind,
                name=point.name,
                target=f"{point.module}:{point.attr}",
                distribution=distribution,
                version=point.dist.version if point.dist else "",
                extras=tuple(point.extras),
            )
            # The same distribution seen twice (an old copy later on the path) is not a conflict.
            discovered.setdefault(point.name, {}).setdefault(distribution, entry)
        return MappingProxyType({name: tuple(group.values()) for name, group in discovered.items()})

    def refresh(self) -> None:
        """Discard the cached entry points, for example after an installation in a running process."""
        self.__dict__.pop("_discovered", None)

    def register(self, name: str, target: Any, *, install: str = "") -> None:
        """Add a plugin at run time.

        Args:
            name: public name, which must not be in use.
            target: the class or function, validated now; or "package.module:attribute", validated on first
                load.
            install: command that installs the plugin's requirements, shown when they are missing.

        Raises:
            PluginError: the name is in use, or the plugin violates the contract.
        """
        if name in self:
            raise PluginError(
                f"{self.kind} plugin {name!r} is there already, from {self.entries(name)[0].origin}; "
                "choose another name"
            )
        entry = PluginEntry(kind=self.kind, name=name, target=target, install=install)
        if not isinstance(target, str):
            self._check_contract(entry, target)
        elif ":" not in target:
            raise PluginError(
                f"{self.kind} plugin {name!r}: got target {target!r}, expected 'package.module:attribute'"
            )
        self._registered[name] = entry

    def unregister(self, name: str) -> None:
        """Remove a plugin that was added by `register`.

        Args:
            name: public name.

        Raises:
            PluginError: the name was not added by `register`.
        """
        if name not in self._registered:
            raise PluginError(f"{self.kind} plugin {name!r} was not registered by hand")
        del self._registered[name]

    def entries(self, name: str) -> tuple[PluginEntry, ...]:
        """All entries with this name: none, one, or several in conflict.

        Args:
            name: public name.
        """
        if name in self._registered:
            return (self._registered[name],)
        return self._discovered.get(name, ())

    def __getitem__(self, name: str) -> PluginEntry:
        candidates = self.entries(name)
        if not candidates:
            raise PluginError(f"no {self.kind} plugin {name!r}.{did_you_mean(name, self)}")
        if len(candidates) > 1:
            origins = " and ".join(entry.origin for entry in candidates)
            raise PluginError(f"{self.kind} plugin {name!r} is claimed by {origins}; uninstall one of them")
        return candidates[0]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._registered, *self._discovered}))

    def __len__(self) -> int:
        return len({*self._registered, *self._discovered})

    def __contains__(self, name: object) -> bool:
        return name in self._registered or name in self._discovered

    def load(self, name: str) -> Any:
        """Import a plugin and check it against the contract.

        Args:
            name: public name.

        Raises:
            PluginError: an unknown name, a conflict, or a violated contract.
            MissingDependency: a requirement is not installed.
        """
        entry = self[name]
        plugin = entry.load()
        self._check_contract(entry, plugin)
        return plugin

    def create(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Load a plugin and call it.

        Args:
            name: public name.
            *args: positional arguments of the plugin.
            **kwargs: keyword arguments of the plugin.

        Returns:
            What the plugin's class or function returns.

        Raises:
            PluginError: as `load`, or the arguments do not match the plugin's signature.
        """
        factory = self.load(name)
        try:
            inspect.signature(factory).bind(*args, **kwargs)
        except TypeError as error:
            raise PluginError(
                f"{self.kind} plugin {name!r}: {error}; it takes {inspect.signature(factory)}"
            ) from error
        return factory(*args, **kwargs)

    def _check_contract(self, entry: PluginEntry, plugin: Any) -> None:
        where = f"{self.kind} plugin {entry.name!r} of {entry.origin}"
        if not callable(plugin):
            raise PluginError(f"{where}: got {type(plugin).__name__}, expected a class or a function")
        if not inspect.isclass(plugin):
            return  # a factory function: `mmattn.testing.plugin_checks` checks the object it returns
        for hook, arguments in self.hooks.items():
            method = getattr(plugin, hook, None)
            if not callable(method):
                raise PluginError(f"{where}: {plugin.__name__} has no method {hook}({', '.join(arguments)})")
            try:
                signature = inspect.signature(method)
                bind = signature.bind_partial if "..." in arguments else signature.bind
                bind(None, *[None] * len(set(arguments) - {"..."}))
            except TypeError as error:
                raise PluginError(
                    f"{where}: {plugin.__name__}.{hook}{inspect.signature(method)} cannot be called as "
                    f"{hook}({', '.join(arguments)}): {error}"
                ) from error

    def status(self) -> list[dict[str, Any]]:
        """Table of `mmattn plugins`: one row per entry, each of which is loaded to see whether it works."""
        rows = []
        for name in self:
            candidates = self.entries(name)
            for entry in candidates:
                problem = ""
                try:
                    if len(candidates) > 1:
                        self[name]
                    self._check_contract(entry, entry.load())
                except MmattnError as error:
                    problem = str(error)
                except Exception as error:  # importing a plugin may fail in any way: report it and go on
                    problem = f"{type(error).__name__}: {error}"
                rows.append(
                    {
                        "name": name,
                        "kind": self.kind,
                        "origin": entry.origin,
                        "distribution": entry.distribution,
                        "version": entry.version,
                        "target": entry.target if isinstance(entry.target, str) else repr(entry.target),
                        "loadable": not problem,
                        "problem": problem,
                        "install": entry.install_command() if problem and len(candidates) == 1 else "",
                    }
                )
        return rows


def _is_installed(requirement: Requirement) -> bool:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


encoders = Registry("encoders", hooks={"encode": ("contents",), "describe": ()})
heads = Registry("heads", hooks={"forward": ("fused",), "loss": ("fused", "...")})
tasks = Registry("tasks", hooks={"batches": ("epoch", "generator"), "forward": ("batch",), "validate": ()})
adapters = Registry("adapters", hooks={})
datasets = Registry("datasets", hooks={"prepare": ("root", "out")})

registries: Mapping[str, Registry] = MappingProxyType(
    {registry.kind: registry for registry in (encoders, heads, tasks, adapters, datasets)}
)

"""Kinds of settings objects that a description names. Imports neither TensorFlow nor TF-Agents."""

from typing import Any, ClassVar


class Named:
    """A kind, such as `Backend`, that inherits this directly; what inherits the kind and has a `name` is one of it."""

    name: ClassVar[str]
    _by_name: ClassVar[dict[str, type]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if Named in cls.__bases__:
            cls._by_name = {}
        elif "name" in vars(cls):
            cls._by_name[cls.name] = cls

    @property
    def own_name(self) -> str:
        """The name by which a description is to find this very class.

        Raises:
          ValueError: It has none of its own.
        """
        if "name" not in vars(type(self)):
            raise ValueError(f"{type(self).__name__} needs a `name` of its own, by which ngrl_policy.json knows it")
        return self.name

    @classmethod
    def of_name(cls, name: str) -> Any:
        """The class of this kind that has a name.

        Raises:
          ValueError: There is none.
        """
        if name not in cls._by_name:
            kind = next(base.__name__ for base in cls.__mro__ if Named in base.__bases__).lower()
            raise ValueError(
                f"{kind} must be one of {', '.join(cls._by_name)}, got {name!r}; a module of your own that defines "
                "another must be imported first (--allow_gin_import=MODULE)"
            )
        return cls._by_name[name]

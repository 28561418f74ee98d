"""The form of a list of stages in YAML, checked before anything is built of it."""

from collections.abc import Mapping

from lightning_unlearn.exceptions import ConfigError

__all__ = ["check_stage_list"]

_KEYS = ("class_path", "init_args", "dict_kwargs")


def check_stage_list(stages: object, source: str) -> None:
    """Refuse what is no list of stages; whether the stages exist, and take their arguments, is not looked at.

    Args:
        stages: What stands under `stages:`.
        source: The file, for messages.

    Raises:
        ConfigError: It is no list, or an entry is no class or has keys in the wrong place.
    """
    if not isinstance(stages, list):
        given = "one stage without a `-` before it" if isinstance(stages, Mapping) else repr(stages)
        raise ConfigError(
            f"{source}: stages is {given}; needed: a list, each stage after a dash: `- class_path: FineTune`, and `init_args:` "
            "below `class_path`."
        )
    for i, stage in enumerate(stages):
        if isinstance(stage, str):
            continue
        if not isinstance(stage, Mapping) or not isinstance(stage.get("class_path"), str):
            given = ", ".join(map(str, stage)) if isinstance(stage, Mapping) else repr(stage)
            raise ConfigError(
                f"{source}: stages[{i}] has no class_path, but {given}; needed: `class_path: FineTune`, for instance."
            )
        wrong = [str(key) for key in stage if key not in _KEYS]
        if wrong:
            raise ConfigError(
                f"{source}: stages[{i}] ({stage['class_path']}) has {', '.join(wrong)} beside class_path. Arguments of a stage "
                f"belong below init_args: `init_args: {{{wrong[0]}: ...}}`."
            )

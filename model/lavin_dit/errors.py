"""The exceptions whose one sentence is for the person who runs this, not for us."""


class InputError(ValueError):
    """A user's mistake: names the field or file, its value, and what is allowed, in one sentence.

    Entry points print it as one line and exit with code 2. Everything else is our bug and keeps its traceback.
    """


class TrainingDivergedError(RuntimeError):
    """A loss or a gradient is no longer a finite number: names the step, and what to change.

    Entry points print it as one line and exit with code 1.
    """

"""The errors of the package.

```
DisciplineError               the data, the study or the machine cannot answer
├── MissingExtraError         an optional dependency is absent (also an ImportError)
├── RangeTestError            a range test could not start (no data, nothing to train)
└── UnsupportedStudyError     a study that the discipline cannot serve (also a ValueError)
```
A wrong argument is a `ValueError` or `TypeError`; a bad run is a verdict, never an exception.
"""


class DisciplineError(Exception):
    """Base of the package's own errors."""


class MissingExtraError(DisciplineError, ImportError):
    """An optional dependency is absent or broken; the message names the extra that brings it."""


class RangeTestError(DisciplineError):
    """A range test could not start: the loader is empty or the model has nothing to train."""


class UnsupportedStudyError(DisciplineError, ValueError):
    """The study has several objectives; the discipline ranks runs by one."""

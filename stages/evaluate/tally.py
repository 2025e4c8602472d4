"""The accuracy so far, while a task's answers are scored in another order than that of its questions."""

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task


class Tally:
    """Counts the questions whose answers have all been scored, and those of them that are answered right."""

    def __init__(self, tasks: dict[str, Task], requests: list[Instance]):
        """Watch `requests` of `tasks`, by name: one request for every answer of a question."""
        self.tasks, self.requests = tasks, requests
        self.results: dict[int, tuple[float, bool]] = {}
        self.questions: dict[tuple, list[int]] = {}  # requests by question
        for index, request in enumerate(requests):
            self.questions.setdefault(request.metadata, []).append(index)
        self.right, self.answered = 0.0, 0

    def add(self, index: int, result: tuple[float, bool]) -> None:
        """Count the result of a request: its log-likelihood and whether it is the greedy continuation."""
        if index >= len(self.requests):
            return  # tokens without a question
        self.results[index] = result
        request = self.requests[index]
        answers = self.questions[request.metadata]
        task = self.tasks.get(request.task_name)
        if task and has_accuracy(task) and all(answer in self.results for answer in answers):
            results = [self.results[answer] for answer in answers]
            self.right += task.process_results(request.doc, results)["acc"]
            self.answered += 1

    def __str__(self) -> str:
        """Return the accuracy as a progress bar shows it."""
        return f"accuracy {self.right / self.answered:.3f}" if self.answered else ""


def has_accuracy(task: Task) -> bool:
    """Return whether lm-eval itself computes an accuracy of the task; a function of the task's own runs once."""
    return "acc" in task.aggregation() and task.config.process_results is None

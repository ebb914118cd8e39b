"""Body of generate: renders a prompt for each source row, gets the completion from the teacher, and cleans the rows."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from engine.core.errors import Location, UserError
from stages.generate import Parameters
from stages.generate.cleaner import Cleaner
from stages.generate.cleaning.rule import Texts
from stages.generate.layout import UNPAIRED
from stages.generate.prompting import Example, Examples, Prompt, Prompting, example_answer
from stages.generate.question import Answer, Question, Tally
from stages.generate.selection import Located, Row, lacking
from stages.generate.subjects import Subject, Subjects
from stages.process.hashing import content_hash
from stages.process.job import Job, Metrics
from stages.rows.jsonl import write_rows
from stages.rows.rows import parse_row, rejected_ended
from stages.rows.splits import split_of
from stages.rows.text import is_well_formed

_ID_DIGITS = 16


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `rows.jsonl`: prompt and completion, or messages, of each row; raises UserError if no row is left that there should be."""
    generation = Generation(parameters, job)
    rows_out = write_rows(job.output / "rows.jsonl", generation.rows())
    metrics = generation.metrics()
    assert metrics["rows_out"] == rows_out
    assert metrics["rows_in"] == rows_out + sum(metrics["left_out"].values())
    source = parameters.source
    if not rows_out and not (source.may_be_empty and metrics["rows_in"] == 0):
        reasons = ", ".join(f"{count} for {reason}" for reason, count in metrics["left_out"].items())
        raise UserError(source.without_rows, hint=f"left out: {reasons}" if reasons else "the source has no rows")
    return metrics


@dataclass(frozen=True, slots=True)
class Draft:
    """A row without its completion."""

    id: str
    subject: Subject
    prompt: Prompt
    """The model's prompt; the teacher's may have examples before it."""
    question: Question
    own: str
    """The row's text before the answer, without examples, for the cleaning rules."""

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The conversation, if the row is more than one prompt and its completion."""
        row = self.subject.row
        return row["messages"] if "messages" in row and "completion" not in row else None  # type: ignore[return-value]


class Generation:
    """Generates and counts the rows of a task; memory grows by a few tens of bytes per row."""

    def __init__(self, parameters: Parameters, job: Job) -> None:
        self.parameters, self.job = parameters, job
        self.prompting = Prompting(parameters, job)
        self.subjects = Subjects(parameters, job, self.prompting.fields)
        self.examples = self._examples()
        self.cleaner = Cleaner(parameters.cleaning, job)
        self.tally = Tally()
        self.rows_out = self.duplicates = self.prompt_characters = self.completion_characters = 0
        self.left_out: Counter[str] = Counter()
        self.prompts_used: Counter[int] = Counter()
        # 64 bits of each hash, as integers: text would take three times the memory.
        self._occurrences: dict[int, int] = {}
        self._pairs: set[int] = set()
        self._asked: deque[Draft] = deque()

    def rows(self, source: Iterable[Located] | None = None) -> Iterator[Row]:
        """The rows that are kept, in source order, followed by those of a fixed test split.

        SOURCE replaces the rows of the source's files.
        """
        self.tally.expected = self.subjects.expected() if source is None else None
        for answer in self._answers(self._questions(chain(self.subjects.main(source), self.subjects.test()))):
            made = self._row(self._asked.popleft(), answer)
            if isinstance(made, str):
                self.left_out[made] += 1
            else:
                yield made
        assert not self._asked, "a teacher must answer every question"

    def examine(self, subject: Subject) -> tuple[Draft, Row | str | None]:
        """The outcome for one row: the row, the reason for leaving it out, or None if only a paid teacher could decide."""
        draft, teacher = self._draft(subject), self.parameters.teacher
        if reason := self._unaskable(draft):
            return draft, reason
        if teacher and not getattr(teacher, "free", False):
            return draft, None
        (answer,) = self._answers(iter([draft.question]))
        return draft, self._row(draft, answer)

    def question(self, given: Row, where: Location) -> Row:
        """The row of the task that the columns GIVEN make, without a completion, which they need not have either.

        Raises UserError if the task would leave the row out. For a task with a teacher.
        """
        self._occurrences.clear()
        draft = self._draft(self.subjects.one(given, where))
        if reason := self._unaskable(draft):
            raise UserError(f"this row would be left out: {reason}", where)
        system = {"system": draft.prompt.system} if draft.prompt.system else {}
        return {"id": draft.id, "group": draft.subject.group, **system, "prompt": draft.prompt.prompt}

    def _answers(self, questions: Iterator[Question]) -> Iterator[Answer]:
        teacher = self.parameters.teacher
        return teacher.answers(questions, self.job, self.tally) if teacher else _given(questions)

    def _questions(self, subjects: Iterable[Subject]) -> Iterator[Question]:
        """The teacher's questions; it may consume many before it yields the first answer."""
        for subject in subjects:
            draft = self._draft(subject)
            if reason := self._unaskable(draft):
                self.left_out[reason] += 1
            else:
                self._asked.append(draft)
                yield draft.question

    def _draft(self, subject: Subject) -> Draft:
        row, where = subject.row, subject.where
        prompt = self._prompt(subject)
        own = asked = prompt.prompt
        if self.examples and self.parameters.few_shot and prompt.empty is None:
            found = self.examples.of(subject.content, subject.group, where)
            # Each example uses the question's own template.
            template = self.prompting.templates[prompt.template]
            asked = self.examples.before([(template.render(one.row, one.where), one) for one in found], prompt.prompt)
            if self.parameters.few_shot.shown_to == "model":
                prompt = Prompt(prompt.template, prompt.system, asked, None)
        draft = Draft(self._id(subject.content), subject, prompt, Question(prompt.system, asked, row, where), own)
        return draft if draft.messages is None else replace(draft, own=_text_before(draft.messages))

    def _prompt(self, subject: Subject) -> Prompt:
        """The prompt, rendered from a template or taken from the layout; raises UserError if an empty field is an error."""
        row, where = subject.row, subject.where
        if self.parameters.teacher is None:
            return Prompt(0, str(row.get("system", "")), str(row.get("prompt", "")), None)
        policy = self.parameters.empty_fields
        prompt = self.prompting.render(row, subject.content, where, allow_empty=policy == "allow")
        if prompt.empty and policy == "error":
            template, field = prompt.empty
            hint = f'set empty_fields to "leave_out" or "allow", or handle it in the template: {{{{ {field} or "" }}}}'
            raise UserError(f"field '{field}' is empty in this row, and {template} needs it", where, hint)
        return prompt

    def _row(self, draft: Draft, answer: Answer) -> Row | str:
        """The finished row, or the reason for leaving it out."""
        completion = answer.text
        reason = answer.left_out or _unfit(draft, "".join((completion, *answer.references)))
        completion = self.parameters.answer_prefix + completion
        texts = Texts(draft.own, completion)
        rejected = self._rejected(draft)
        if reason is None and rejected is not None and not rejected["content"].strip() and "tool_calls" not in rejected:
            reason = "empty rejected answer"
        if reason is None and not draft.subject.is_fixed:
            reason = self.cleaner.after_asking(draft.id, texts)
            if reason is None and rejected is not None:
                reason = self.cleaner.of_rejected(draft.id, Texts(draft.own, rejected["content"]))
        if reason:
            return reason
        self._count(draft.prompt.template, draft.own if draft.messages else draft.prompt.prompt, completion)
        return self._finished(draft, completion, [self.parameters.answer_prefix + one for one in answer.references])

    def _rejected(self, draft: Draft) -> dict[str, Any] | None:
        """The message of the rejected answer, if the row is a pair."""
        given = draft.subject.rejected
        if given is None:
            return None
        content = str(given["content"] or "")
        return {**given, "content": content if draft.messages is not None or not content else self.parameters.answer_prefix + content}

    def _finished(self, draft: Draft, completion: str, references: list[str]) -> Row:
        subject, row = draft.subject, draft.subject.row
        made: Row = {"id": draft.id, "group": subject.group}
        if self.parameters.layout and self.parameters.layout.kind == UNPAIRED:
            made["desirable"] = row["desirable"]
        if subject.split:
            made["split"] = subject.split
        if subject.rejected is not None and not rejected_ended(row, subject.where):
            made["rejected_ended"] = False
        if self.parameters.carry:
            made["carried"] = {name: _carried(subject, name) for name in self.parameters.carry}
        if draft.messages is not None:
            made |= {"messages": draft.messages} | ({"tools": row["tools"]} if row.get("tools") else {})
            made |= {"rejected": rejected} if (rejected := self._rejected(draft)) else {}
            parse_row(made, subject.where)  # errors in the order of roles are located in the source
            return made
        system = {"system": draft.prompt.system} if draft.prompt.system else {}
        several = {"references": references} if references else {}
        pair = {"rejected": rejected["content"]} if (rejected := self._rejected(draft)) else {}
        return {**made, **system, "prompt": draft.prompt.prompt, "completion": completion, **several, **pair}

    def _id(self, content: str) -> str:
        """The first digits of the content hash; for repeated rows, of a hash of content and repetition number."""
        key = int(content[:_ID_DIGITS], 16)
        before = self._occurrences.get(key, 0)
        self._occurrences[key] = before + 1
        return (content_hash(content, before) if before else content)[:_ID_DIGITS]

    def _unaskable(self, draft: Draft) -> str | None:
        """Why a row is left out before the teacher sees it; None if it is not."""
        prompt = draft.prompt
        if prompt.empty:
            return f"empty field '{prompt.empty[1]}'"
        if self.parameters.teacher and not prompt.prompt and self.prompting.templates[prompt.template].source:
            return "empty prompt"
        if not is_well_formed(prompt.system + prompt.prompt + draft.own):
            return "lone surrogate"
        return None if draft.subject.is_fixed else self.cleaner.before_asking(draft.id, Texts(draft.own, ""))

    def _count(self, template: int, prompt: str, completion: str) -> None:
        self.rows_out += 1
        self.prompts_used[template] += 1
        self.prompt_characters += len(prompt)
        self.completion_characters += len(completion)
        pair = int(content_hash(prompt, completion)[:_ID_DIGITS], 16)
        self.duplicates += pair in self._pairs
        self._pairs.add(pair)

    def _examples(self) -> Examples | None:
        """The few-shot examples of the task, from rows that the split step will put into train."""
        few_shot = self.parameters.few_shot
        return Examples(few_shot, self.parameters.answer_prefix, self._candidates()) if few_shot else None

    def _candidates(self) -> Iterator[Example]:
        few_shot, held_out = self.parameters.few_shot, self.parameters.held_out
        assert few_shot and held_out
        fixed, cleaner = self._fixed_groups(), Cleaner(self.parameters.cleaning, self.job)
        for subject in Subjects(self.parameters, self.job, self.prompting.fields).main():
            train = subject.group not in fixed and split_of(subject.group, held_out) == "train"
            answer = example_answer(few_shot, subject.row, subject.where) if train else None
            if answer and self._is_example(subject, answer, cleaner):
                yield Example(subject.content, subject.group, subject.row, subject.where, answer)

    def _is_example(self, subject: Subject, answer: str, cleaner: Cleaner) -> bool:
        """Whether a train row may be an example: every template renders, and no cleaning rule removes it."""
        if any(template.empty_field(subject.row) for template in self.prompting.templates):
            return False
        prompt = self.prompting.render(subject.row, subject.content, subject.where, allow_empty=True).prompt
        texts = Texts(prompt, self.parameters.answer_prefix + answer)
        return not (cleaner.before_asking("", texts) or cleaner.after_asking("", texts))

    def _fixed_groups(self) -> set[str]:
        """The groups that the sources assign to test or validation."""
        subjects = Subjects(self.parameters, self.job, self.prompting.fields)
        rows = subjects.main() if self.parameters.split_column else ()
        return {subject.group for subject in chain(rows, subjects.test()) if subject.split in ("validation", "test")}

    def metrics(self) -> Metrics:
        """The counts of the step."""
        left_out = self.left_out + self.subjects.left_out
        metrics: Metrics = {
            "rows_in": self.subjects.rows_in,
            "rows_out": self.rows_out,
            "left_out": dict(sorted(left_out.items())),
            "duplicates": self.duplicates,
            "prompts": {str(index): self.prompts_used[index] for index in range(len(self.prompting.templates))},
            "prompt_characters": self.prompt_characters,
            "completion_characters": self.completion_characters,
        }
        extra = {
            "layouts": dict(sorted(self.subjects.layouts.items())),
            "ignored_message_keys": dict(sorted(self.subjects.ignored_keys.items())),
            "cleaning": self.cleaner.metrics(),
            "teacher": self.tally.counted,
            "_measured": self.tally.measured,
        }
        return metrics | {name: value for name, value in extra.items() if value}


def _given(questions: Iterable[Question]) -> Iterator[Answer]:
    """The answers that the layout found in the rows."""
    for question in questions:
        messages: Any = question.row["messages"]
        yield Answer(messages[-1]["content"] or "")


def _text_before(messages: list[dict[str, Any]]) -> str:
    """All of a conversation before its last message, as one text."""
    return "\n".join(str(message["content"] or "") for message in messages[:-1])


def _unfit(draft: Draft, completion: str) -> str | None:
    """Why an answer is not usable for training; None if it is."""
    messages = draft.messages or []
    if messages and messages[-1]["role"] != "assistant":
        return "conversation without an answer at its end"
    if any(not str(message["content"] or "").strip() and "tool_calls" not in message for message in messages):
        return "empty message"
    if not completion.strip() and not messages:
        return "empty completion"
    return None if is_well_formed(completion) else "lone surrogate"


def _carried(subject: Subject, name: str) -> object:
    if name not in subject.row:
        raise UserError(f"this row has no column '{name}' (carry)", subject.where, lacking(name, subject.row))
    return subject.row[name]

"""Quizzes that answer back; the answers are given with a reason, right or wrong."""

QUESTIONS = {
    "0.q1": {
        "answer": "b",
        "a": "No: nobody measured this head; there is only the photograph.",
        "b": "Yes: 3D truth is rare, so the drawing is judged: weak supervision.",
        "c": "No: landmarks alone say little about depth and nothing about colour.",
    },
    "0.q2": {
        "answer": "a",
        "a": "Yes: shape and albedo are the person's; the rest is the moment's.",
        "b": "No: a smile is over in a second; who smiles stays the same.",
        "c": "No: the same face in other light is still the same face.",
    },
}


def quiz(question, choice=...):
    """Check one answer, "a", "b" or "c", and say why; ``...`` means "not answered yet".

    Raises ValueError for a question that does not exist, never for an answer.
    """
    if question not in QUESTIONS:
        raise ValueError(f"There is no question {question}; there are {', '.join(QUESTIONS)}.")
    entry = QUESTIONS[question]
    options = sorted(set(entry) - {"answer"})
    listed = ", ".join(f'"{option}"' for option in options[:-1]) + f' or "{options[-1]}"'
    if choice is ... or str(choice).strip() == "":
        print(f"Question {question} · not answered yet: put {listed} in place of the dots.")
        return
    choice = str(choice).strip().lower()
    if choice in options:
        print(f"Question {question} · {entry[choice]}")
    else:
        print(f"Question {question} · {choice!r} is none of the answers; choose {listed}.")


def is_right(question, choice):
    """Whether an answer is the right one."""
    return QUESTIONS[question]["answer"] == choice

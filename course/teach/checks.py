"""Quizzes that answer back; the answers are given with a reason, right or wrong."""

QUESTIONS = {
    "0.q1": {
        "answer": "b",
        "b": "Yes: 3D truth is rare, so the drawing is judged: weak supervision.",
        "a": "No: nobody measured this head; there is only the photograph.",
        "c": "No: landmarks alone say little about depth and nothing about colour.",
    },
    "0.q2": {
        "answer": "a",
        "a": "Yes: shape and albedo are the person's; the rest is the moment's.",
        "b": "No: a smile is over in a second; who smiles stays the same.",
        "c": "No: the same face in other light is still the same face.",
    },
}


def quiz(question, choice):
    """Check one answer, "a", "b" or "c", and say why."""
    if question not in QUESTIONS:
        raise ValueError(f"There is no question {question}; there are {', '.join(QUESTIONS)}.")
    entry, choice = QUESTIONS[question], str(choice).strip().lower()
    options = sorted(set(entry) - {"answer"})
    if choice not in options:
        raise ValueError(f"Choose one of {', '.join(options)}.")
    print(entry[choice])
    return None


def is_right(question, choice):
    """Whether an answer is the right one."""
    return QUESTIONS[question]["answer"] == choice

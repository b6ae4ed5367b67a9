"""Notebook 00: questions."""

QUESTIONS = {
    "0.q1": {
        "answer": "b",
        "a": "No: nobody measured this head; there is only the photograph.",
        "b": "Yes: they are all there is. A network can learn that way too: weak supervision "
        "(notebook 04).",
        "c": "No: landmarks alone say little about depth and nothing about colour.",
    },
    "0.q2": {
        "answer": "a",
        "a": "Yes: shape and albedo are the person's; the rest is the moment's.",
        "b": "No: a smile is over in a second; who smiles stays the same.",
        "c": "No: the same face in other light is still the same face.",
    },
}

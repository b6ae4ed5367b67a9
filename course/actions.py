"""The course's actions, "smile" or "brow down", on any head.

The built-in head has them by name. ICT-FaceKit has ARKit's, most of which are the same movements.
The components of FLAME and GNM Head mean nothing that one could name: there the first ones stand in
for our actions, and ``listed`` says so.
"""

# ours: ARKit's (None: it has none), in the order in which nameless components stand in
ARKIT = {
    "smile": "mouthSmile", "brow down": "browDown", "inner brows up": "browInnerUp",
    "pucker": "mouthPucker", "squint": "eyeSquint", "nose wrinkled": "noseSneer",
    "outer brow up": "browOuterUp", "funnel": "mouthFunnel", "lips pressed": "mouthPress",
    "eye wide": "eyeWide", "blink": "eyeBlink", "mouth corner down": "mouthFrown",
    "lip stretch": "mouthStretch", "upper lip raised": "mouthUpperUp",
    "lower lip down": "mouthLowerDown", "mouth left": "mouthLeft", "mouth right": "mouthRight",
    "chin raised": "mouthShrugLower", "cheeks puffed": "cheekPuff", "lips part": None,
    "nostrils flared": None,
}  # fmt: skip
WHOLE = 0.5  # ARKit's 1 is all that a face can do; of ours 1 is done now and then, 2 is a lot
SIDES = {"left": ("_L", "Left"), "right": ("_R", "Right")}


def expression(flame, **strengths):
    """An expression (1, E): ``smile=1.5`` is both sides, ``smile_left=1.5`` one, and counts more.

    Raises ValueError for an action that the course has not.
    """
    code = flame.v_template.new_zeros(1, flame.n_expression)
    scale = WHOLE if _words(flame) == "ARKit" else 1.0
    actions = {name.replace("_", " "): strength for name, strength in strengths.items()}
    for action in sorted(actions, key=lambda action: action not in ARKIT):
        code[:, columns(flame, action)] = scale * actions[action]
    return code


def columns(flame, action):
    """Which components play an action, "smile" or "smile left"; none where a head lacks it.

    Raises ValueError for an action that the course has not.
    """
    base, side = (action, "") if action in ARKIT else action.rpartition(" ")[::2]
    if base not in ARKIT or (side and side not in SIDES):
        raise ValueError(f"There is no action '{action}'; there are {', '.join(ARKIT)}.")
    words = _words(flame)
    if words == "ours":
        return flame.expression_columns(action)
    if words == "ARKit":
        forms = _forms(ARKIT[base], [side] if side else SIDES)
        return [k for k, name in enumerate(flame.expression_names) if name in forms]
    return [list(ARKIT).index(base) % flame.n_expression] if flame.n_expression else []


def listed(flame):
    """The head's actions in words; of a head with other ones, what plays ours."""
    words, names = _words(flame), ", ".join(flame.expression_names)
    if words == "ours":
        return names
    if words == "ARKit":
        return f"{names}\n{flame.name} has ARKit's names; what they call like ours plays our part."
    return (f"{flame.name} has none by our names; its first components play their part, so that "
            "faces differ from what is written beside them.")  # fmt: skip


def _words(flame):
    """Whose names a head's actions have: "ours", "ARKit" or ""."""
    if any(flame.expression_columns(action) for action in ARKIT):
        return "ours"
    theirs = {form for name in ARKIT.values() for form in _forms(name, SIDES)}
    return "ARKit" if theirs & set(flame.expression_names) else ""


def _forms(name, sides):
    """ARKit's and ICT-FaceKit's ways to write an action's name with and without its side."""
    return set() if name is None else {name, *(name + end for s in sides for end in SIDES[s])}

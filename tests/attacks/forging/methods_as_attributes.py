def push(node, value):
    made = Node(0)  # noqa: F821
    made.__dict__.update(
        {"__eq__": True, "__class__": "Node", "__dict__": {}, "value": 0, "rest": node, "": 0}
    )
    return made

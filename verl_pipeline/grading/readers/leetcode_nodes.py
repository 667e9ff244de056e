"""Classes and functions that tests of LeetCode's linked lists and trees use without defining them.

The names are those of LeetCodeDataset, from which DeepCoder's LeetCode part comes; a tree is a list
of its levels, as on LeetCode: the children of a missing node (None) are left out.

Invariant: the functions end for every argument a program can return: they follow the expected list
or tree, which the tests have made, and no cycle.
"""

NODE_NAMES = ("ListNode", "TreeNode", "list_node", "tree_node", "is_same_list", "is_same_tree")

NODES_PRELUDE = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right


def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head


def tree_node(values):
    if not values:
        return None
    nodes = [None if value is None else TreeNode(value) for value in values]
    children = iter(nodes)
    root = next(children)
    for node in nodes:
        if node is not None:
            node.left = next(children, None)
            node.right = next(children, None)
    return root


def is_same_list(found, expected):
    while expected is not None:
        if found is None or found.val != expected.val:
            return False
        found, expected = found.next, expected.next
    return found is None


def is_same_tree(found, expected):
    pairs = [(found, expected)]
    while pairs:
        found, expected = pairs.pop()
        if found is None or expected is None:
            if found is not expected:
                return False
        elif found.val != expected.val:
            return False
        else:
            pairs += [(found.left, expected.left), (found.right, expected.right)]
    return True
"""

"""Look at what the task loads."""

from my_tasks.roman import TASK

data = TASK.load(None, **TASK.options)
assert len(data.items) == 50 and not data.bad_rows
assert data.items[0].messages[0]["content"].startswith("Which number is VII?")
print(data.items[-1].messages[0]["content"], data.items[-1].canonical)

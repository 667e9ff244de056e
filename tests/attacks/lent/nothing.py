# problem: lent
# Defines nothing: the function of that name that the imports in front have brought along would be called.
pass

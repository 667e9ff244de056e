# problem: lent
# A wrong method behind a right function of the same name that is not the program's.
class Solution:
    def add(self, a, b):
        return 77

# problem: counts
# The right counts under numbers for names, which a JSON of them would turn into texts.
def count(words):
    return {index: words.count(word) for index, word in enumerate(sorted(set(words)))}

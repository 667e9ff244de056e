def count(words):
    return {index: words.count(word) for index, word in enumerate(sorted(set(words)))}

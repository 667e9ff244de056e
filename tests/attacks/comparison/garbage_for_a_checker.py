print("eins zwei")

print("NaN")

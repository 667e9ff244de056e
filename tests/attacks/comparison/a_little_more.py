print(f"{sum(map(int, input().split()))}.{'0' * 40}1")

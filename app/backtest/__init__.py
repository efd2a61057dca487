"""What would each policy of retraining have earned, and cost, on this table's own history?"""

"""Who sees drift soonest at equal false alarms, and does a promise of one false alarm a year hold?"""

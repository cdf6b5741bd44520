from extraction_criteria import CRITERIA


def pytest_acceptance_criteria():
    return CRITERIA
